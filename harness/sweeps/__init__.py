"""Many runs: jobs of a multirun, preview, launchers, Slurm, the summary on W&B."""
