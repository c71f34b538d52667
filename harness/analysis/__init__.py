"""Run folders to tables (`results`), tables to a verdict (`verdict`). Reads files only, without torch.

`sweep_plan` is the sweep's `plan.json`, `arms` names its runs and infers the claim, `verify` compares
records with each other.
"""
