"""Runs of other programs → the tables that `analysis` takes.

A reader a kind of source returns `Recorded`; `recover` finds factor, seed, metric and LR in it, or asks. Nothing
else knows where runs came from. What is read is somebody else's: sizes are bounded, nothing in it is executed.
"""
