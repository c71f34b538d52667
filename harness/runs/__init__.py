"""One run and its folder: `job` starts it, `setup` prepares it, `run` trains it.

`recording` writes its rows to the history, to W&B and to the terminal; `result` is its `result.json`.
"""
