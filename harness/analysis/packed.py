"""The curves of many runs in one Parquet file, where each in a folder would be thousands of files.

`FILE.parquet/NUMBER` stands for the folder of a run. Columns: run (UInt32), and those of a history; rows of a run are
together, runs in rising order.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray


def is_packed(folder: Path) -> bool:
    return folder.parent.suffix == ".parquet"


def history(folder: Path, schema: Mapping[str, pl.DataType | type[pl.DataType]]) -> pl.DataFrame:
    """Return the rows of a run; null where the file lacks a column of `schema`."""
    curves, numbers = _read(folder.parent)
    own = np.array(
        [int(folder.name), int(folder.name) + 1], numbers.dtype
    )  # of another type, all would be cast
    begin, end = np.searchsorted(numbers, own)
    rows = curves[int(begin) : int(end)]
    lacking = [
        pl.lit(None, dtype).alias(name)
        for name, dtype in schema.items()
        if name not in rows.columns
    ]
    return rows.with_columns(lacking).select(*schema)


@lru_cache(maxsize=1)
def _read(file: Path) -> tuple[pl.DataFrame, NDArray[np.uint32]]:
    curves = pl.read_parquet(file)
    return curves.drop("run"), curves["run"].to_numpy()
