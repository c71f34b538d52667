"""From settings to weights: data, network, schedule, loop. Knows no folders, no W&B and no sweeps."""
