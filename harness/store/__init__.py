"""What a run's weights follow from (`identity`), and the checkpoints that are stored under it.

`checkpoint` is one file, `store` all of them, `checkpointer` decides when a run writes and which it keeps.
"""
