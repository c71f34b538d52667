"""Typed, checked settings, and errors of one line. Knows Hydra, needs no torch."""
