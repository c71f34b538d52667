"""The models, data sets, optimizers and schedulers to choose from, registered in `builtin`.

Torch is imported where one is built, so that `--help` needs none.
"""
