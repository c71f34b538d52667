"""docs/results.ipynb, run on a sweep of now."""

from __future__ import annotations

import shutil
from pathlib import Path

import nbformat
import pytest
from conftest import ROOT, Main
from nbclient import NotebookClient


@pytest.mark.slow
def test_the_notebook_reads_a_sweep(
    tmp_path: Path, main: Main, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep = tmp_path / "sweeps" / "one"
    done = main(
        "-m", "dataset=synthetic", "dataset.images=200", "dataset.image_size=4", "model.width=1",
        "trainer.epochs=2", "scheduler.t_0=1", "scheduler.t_mult=1,2", "seed=range(0,3)", "tracking=none",
        f"hydra.sweep.dir={sweep}", f"store.dir={tmp_path}/store",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (tmp_path / "docs").mkdir()
    shutil.copy(ROOT / "docs/results.ipynb", tmp_path / "docs")
    monkeypatch.setenv("JUPYTER_PLATFORM_DIRS", "1")
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    notebook = nbformat.read(  # type: ignore[no-untyped-call]
        tmp_path / "docs/results.ipynb", as_version=4
    )
    assert not any(cell.get("outputs") for cell in notebook.cells), "it is kept without outputs"
    context = {"metadata": {"path": str(tmp_path / "docs")}}
    NotebookClient(notebook, timeout=60, resources=context).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    texts = [str(one.get("text") or one.get("data", {}).get("text/plain")) for one in outputs]
    assert texts[0] == "'one'"
    assert "t_mult=2" in texts[1]
    assert "mean" in texts[2]
    assert "count" in texts[2]
    assert "t_mult" in texts[3], "the verdict's sentence"
    assert "image/png" in outputs[-1]["data"]
