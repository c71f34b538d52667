"""What a run's weights follow from, and the checkpoints that are stored under it."""
