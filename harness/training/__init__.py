"""From settings to weights: data, network, LR schedule, loop. Knows no folders, no W&B and no sweeps.

`schedules` makes the LR plan, `datasets` and `batches` the images, `loop` the updates; `distributed`
has the processes of one run.
"""
