"""The models, data sets, optimizers and schedulers to choose from. Torch is imported where one is built."""
