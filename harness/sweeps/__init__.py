"""Many runs: `callback` begins and ends a multirun, `jobs` and `compose` plan its runs.

`preview` and `prefix_tree` show what they share and cost, `launchers` and `slurm` run them elsewhere.
"""
