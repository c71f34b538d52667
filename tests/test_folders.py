"""What others read has no folders of this machine."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from harness.report import folders

ROOTS = [Path("/home/me/my sweeps")]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("/home/me/my sweeps/first/3", "first/3"),
        ("[Errno 2] No such file: '/home/me/data/x.npz'", "[Errno 2] No such file: '…/x.npz'"),
        ("/home/me/my sweeps/first/3/lr.npy: is not of this version", "first/3/lr.npy: is not of this version"),
        ("/home/me/a folder/with spaces", "…/with spaces"),
        ("dataset.root=/data", "dataset.root=…/data"),
        ("root=/a/x,/b/y", "root=…/x,…/y"),
        ("file:///home/me/x and (/home/me/y)", "…/x and (…/y)"),
        ("see https://wandb.ai/me/p and val/acc", "see https://wandb.ai/me/p and val/acc"),
        ("1,149 train / 288 val", "1,149 train / 288 val"),
        ("sweeps/first, ../other and ~/mine", "sweeps/first, ../other and ~/mine"),
        ("</script> of 1/2 and //", "</script> of 1/2 and //"),
        ("", ""),
    ],
)  # fmt: skip
def test_paths_are_relative_or_their_last_part(text: str, shown: str) -> None:
    assert folders.without_folders(text, ROOTS) == shown
    assert folders.without_folders(shown, ROOTS) == shown


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("/home/john/data/x.npz", "…/x.npz"),
        ("see https://wandb.ai/x", "see https://wandb.ai/x"),
        ("no such file: '/data/of John Smith/x.npz'", "no such file: '…/x.npz'"),
    ],
)
def test_sweeps_that_share_no_folder(text: str, shown: str) -> None:
    assert folders.without_folders(text, [Path("/")]) == shown


def test_a_home_folder_may_have_spaces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/John Smith")
    text = "dataset.root=/home/John Smith/images: cannot be read"
    assert folders.without_folders(text) == "dataset.root=…/images: cannot be read"


def test_documents_are_shown_with_their_keys() -> None:
    document = {"/home/me/a": ["/home/me/b", 1, None], "x": {"y": "at /home/me/c"}}
    assert folders.shown(document) == {"…/a": ["…/b", 1, None], "x": {"y": "at …/c"}}


def test_names_that_differ_in_folders_alone_stay_apart() -> None:
    names = ["root=/data/one/images", "root=/data/two/images"]
    parts = folders.parts_to_tell(names)
    assert [folders.without_folders(name, (), parts) for name in names] == [
        "root=…/one/images", "root=…/two/images",
    ]  # fmt: skip
    assert folders.parts_to_tell(["a", "b", "/c/d"]) == 1


def test_a_command_is_one_for_the_checkout() -> None:
    words = [f"{folders.CHECKOUT}/train.py", "-m", "seed=range(0,6)", "dataset.root=/home/me/my data",
             f"hydra.sweep.dir={folders.CHECKOUT}/sweeps/first"]  # fmt: skip
    assert folders.shown_command(words) == (
        "python train.py -m 'seed=range(0,6)' 'dataset.root=…/my data' hydra.sweep.dir=sweeps/first"
    )


@pytest.mark.parametrize(
    ("program", "shown"),
    [
        ("train.py", "train.py"), ("/home/me/repo/train.py", "train.py"),
        ("/home/me/scripts/repo/scripts/slurm/submit.py", "scripts/slurm/submit.py"),
        ("scripts/report.py", "scripts/report.py"),
    ],
)  # fmt: skip
def test_a_program_is_named_as_in_its_checkout(program: str, shown: str) -> None:
    assert folders.shown_command([program, "-m"]) == f"python {shown} -m"


def test_the_root_is_above_the_sweeps(tmp_path: Path) -> None:
    runs = [str(tmp_path / "a/0"), str(tmp_path / "a/1"), None]
    assert folders.roots_of(pl.DataFrame({"folder": runs})) == [tmp_path]
    runs.append(str(tmp_path / "b/0"))
    assert folders.roots_of(pl.DataFrame({"folder": runs})) == [tmp_path.parent]
    assert folders.roots_of(pl.DataFrame({"folder": [None]}, schema={"folder": pl.String})) == []
