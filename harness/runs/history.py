"""The history of a run, a row a line: the truth that W&B shows."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from pathlib import Path

from harness.files import atomic
from harness.training.loop import Row


class History:
    """`history.jsonl`: one row a line, appended as it happens; it begins with the rows `begin`.

    Raises OSError where a row cannot be written, also since someone has removed the file.
    """

    def __init__(self, path: Path, begin: list[Row]) -> None:
        self.rows = list(begin)
        self._path = path
        with atomic(path, "w") as file:
            file.writelines(map(_line, begin))
        self._file = path.open("a")

    def append(self, row: Row) -> None:
        self._file.write(_line(row))
        self._file.flush()
        if not os.fstat(self._file.fileno()).st_nlink:
            raise FileNotFoundError(
                f"{self._path}: was removed while the run wrote to it; the same command goes on "
                "from its last checkpoint"
            )
        self.rows.append(row)

    def close(self) -> None:
        with suppress(OSError):  # of a row that could not be written, which `append` has said
            self._file.close()


def _line(row: Row) -> str:
    return json.dumps(row, allow_nan=False) + "\n"
