"""Windows and macOS as far as Linux can stand in for them: nobody has run the program there yet."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT
from PIL import Image

PRELOADED = """
import os, runpy, signal, sys
import altair, hydra, joblib, numpy, polars, scipy.stats, sklearn.datasets, torch, torchvision.transforms.v2, wandb
import hydra._internal.core_plugins, multiprocessing.synchronize, torch._dynamo, jinja2, vl_convert
"""
WINDOWS = f"""{PRELOADED}
import fcntl, types

def locking(number, mode, size):
    assert os.lseek(number, 0, os.SEEK_CUR) == 2**30 and size == 1
    fcntl.lockf(number, fcntl.LOCK_UN if mode else fcntl.LOCK_EX | fcntl.LOCK_NB, size, 2**30)


sys.modules["msvcrt"] = types.SimpleNamespace(locking=locking, LK_NBLCK=0, LK_UNLCK=1)
sys.platform = "win32"
import harness.files

sys.platform = "linux"
for name in ("fcntl", "resource", "termios", "tty", "pty", "pwd", "grp"):
    sys.modules[name] = None
for name in ("SIGHUP", "SIGUSR1", "SIGUSR2", "SIGKILL", "SIGQUIT", "SIGALRM", "SIGCHLD", "pthread_sigmask"):
    delattr(signal, name)
for name in ("fork", "geteuid", "getpgid", "killpg", "mkfifo", "setsid", "sched_getaffinity", "uname"):
    delattr(os, name)
"""


def python(code: str, *words: str | Path, cwd: Path = ROOT) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, words)], cwd=cwd, text=True, capture_output=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_every_module_is_imported_without_what_windows_lacks() -> None:
    names = [
        ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for path in sorted(ROOT.glob("harness/**/*.py"))
        if path.name != "__init__.py"
    ]
    scripts = [
        str(path) for path in sorted(ROOT.glob("scripts/**/*.py")) if path.name != "__init__.py"
    ]
    python(f"""{WINDOWS}
import importlib, importlib.util
for name in {names}:
    importlib.import_module(name)
sys.path.insert(0, "scripts")
for path in {scripts}:
    spec = importlib.util.spec_from_file_location("script", path)
    sys.modules["script"] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
""")


@pytest.mark.slow
def test_a_sweep_is_trained_and_judged_without_what_windows_lacks(tmp_path: Path) -> None:
    words = (
        "-m", "scheduler.t_mult=1,2", "scheduler.t_0=1", "trainer.epochs=3", "model.width=2", "dataset.train_size=128",
        "tracking=none", f"hydra.sweep.dir={tmp_path}/out", f"store.dir={tmp_path}/store",
    )  # fmt: skip
    out = python(
        f"{WINDOWS}\nsys.argv[0] = 'train.py'\nrunpy.run_path('train.py', run_name='__main__')",
        *words,
    )
    assert "t_mult=2" in out
    assert (tmp_path / "out/report.html").exists()


@pytest.mark.slow
def test_a_lock_of_windows_keeps_others_out_and_says_who_holds_it(tmp_path: Path) -> None:
    code = f"""{WINDOWS}
import subprocess
from pathlib import Path
from harness.files import LockedError, lock
path = Path(sys.argv[1])
if len(sys.argv) > 2:
    try:
        with lock(path):
            print("free")
    except LockedError as error:
        print(error.holder)
else:
    again = [sys.executable, "-c", sys.orig_argv[2], str(path), "other"]
    with lock(path):
        held = subprocess.check_output(again, text=True)
        assert held == f"process {{os.getpid()}} on {{__import__('platform').node()}}\\n", held
    assert subprocess.check_output(again, text=True) == "free\\n"
"""
    python(code, tmp_path / "lock")


@pytest.mark.slow
def test_workers_that_are_spawned_read_the_same_images(tmp_path: Path) -> None:
    """As on macOS and Windows; they import an extension and the program anew."""
    for label in range(2):
        for number in range(20):
            path = tmp_path / f"images/{label}/{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("L", (8, 8), 20 * number + label).save(path)
    start = "import multiprocessing, runpy, sys\n"
    go = "if __name__ == '__main__':\n    multiprocessing.set_start_method('{}')\n    {}\n"
    run = "sys.argv[0] = 'train.py'; runpy.run_path('train.py', run_name='__main__')"
    ends = []
    for method in ("fork", "spawn"):
        words = (
            "dataset=image_folder", f"dataset.root={tmp_path}/images", "dataset.image_size=8",
            "dataset.workers=1", "dataset.val_size=10", "dataset.test_size=10", "dataset.rand_augment=3", "model.width=2",
            "trainer.batch_size=10", "trainer.epochs=1", "scheduler=constant", "tracking=none", "reuse=false",
            "extensions=[examples/own_model.py]", "model=small_cnn", f"hydra.run.dir={tmp_path}/{method}",
        )  # fmt: skip
        python(start + go.format(method, run), *words)
        ends.append((tmp_path / method / "history.jsonl").read_bytes())
    assert ends[0] == ends[1]
