"""One run and its folder: set-up, training, history, result, W&B, signals."""
