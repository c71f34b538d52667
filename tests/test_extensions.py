"""Code of one's own through the command line: docs/extensions.md and examples/."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import forked
import pytest
from conftest import ROOT, essential
from PIL import Image
from test_distributed import environment, torchrun, wait_for_rows
from test_faults import TINY

from harness.config.hydra_private import last_given

EXAMPLES = {
    "own_model": "model=small_cnn",
    "own_schedule": "scheduler=triangular",
    "own_data": "dataset=stripes",
    "own_optimizer": "optimizer=muon",
    "own_metric": "metrics=[calibration]",
}
SMALL = ("trainer.epochs=5", "trainer.batch_size=128", "trainer.log_every=5", "tracking=none")
HEAD = "from torch import nn\nfrom torch.optim.lr_scheduler import LambdaLR\nfrom harness.extend import *\n"
NET = "nn.Sequential(nn.Flatten(), nn.Linear(shape.channels * shape.image_size**2, {}))"
MODEL = f"""{HEAD}
@register("mine")
class Mine(Model):
    width: int = number(at_least=1, at_most=9, default=4)
    workers: int = without_effect(number(at_least=0, default=0))

    def build(self, shape):
        return {{}}
"""
GOOD = MODEL.format(NET.format("shape.classes"))
SCHEDULE = f"""{HEAD}
@register("mine")
class Mine(Scheduler):
    def build(self, optimizer, durations):
        return LambdaLR(optimizer, lambda step: {{}})
"""
METRIC = f"""{HEAD}
@register("mine")
class Mine(Metric):
    {{}}

    def update(self, logits, labels):
        pass

    def compute(self):
        return 1.0
"""
DATA = f"""{HEAD}
import numpy as np
@register("mine")
class Mine(Dataset):
    def read(self):
        pixels, labels, classes = np.zeros((40, 4, 4, 1), np.uint8), np.arange(40) % 2, ["a", "b"]
        pixels[::2] = 9
        {{}}
        return (pixels, labels), None, classes
"""


def write(folder: Path, text: str, name: str = "mine.py") -> str:
    """Write an extension; return the override that names it."""
    (folder / name).write_text(text)
    return f"extensions=[{folder / name}]"


def train(folder: Path, *words: str, env: dict[str, str] | None = None) -> tuple[int, str]:
    """Run `python train.py` in a folder of its own, with the store of `folder`."""
    run = folder / f"run{len(list(folder.glob('run*')))}"
    words = ("train.py", *words, f"store.dir={folder}/store", f"hydra.run.dir={run}")
    done = forked.complete(*words, env=env)
    return done.returncode, done.stdout + done.stderr


def last_result(folder: Path) -> dict[str, Any]:
    runs = sorted(folder.glob("run*"))
    document: dict[str, Any] = json.loads((runs[-1] / "result.json").read_text())
    return document


# --- examples ------------------------------------------------------------------------------------


def test_every_example_is_tried_and_short() -> None:
    files = sorted((ROOT / "examples").glob("*.py"))
    assert {file.stem for file in files} == {*EXAMPLES}
    assert max(len(file.read_text().splitlines()) for file in files) <= 40
    for file in files:
        command = f"python train.py extensions=[examples/{file.name}] {EXAMPLES[file.stem]}"
        assert command in file.read_text().splitlines()[0]


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_trains(tmp_path: Path, name: str) -> None:
    code, said = train(tmp_path, f"extensions=[examples/{name}.py]", EXAMPLES[name], *SMALL)
    assert code == 0, said
    result = last_result(tmp_path)
    assert result["status"] == "complete"
    assert result["config"]["extensions"] == [str(ROOT / f"examples/{name}.py")]
    copy = tmp_path / f"run0/extensions/{name}.py"
    assert copy.read_bytes() == (ROOT / f"examples/{name}.py").read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_that_is_killed_goes_on_bit_by_bit(name: str) -> None:
    words = (f"extensions=[examples/{name}.py]", EXAMPLES[name], "--kills=3")
    done = forked.complete("scripts/verify_resume.py", *words)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_is_previewed_swept_in_parallel_and_judged(tmp_path: Path, name: str) -> None:
    words = (
        f"extensions=[examples/{name}.py]", EXAMPLES[name], *SMALL, "optimizer.lr=0.02,0.05",
        "seed=range(0,6)", "claim.factor=optimizer.lr", f"store.dir={tmp_path}/store",
    )  # fmt: skip
    seen = forked.complete("scripts/preview.py", *words, f"hydra.sweep.dir={tmp_path}/preview")
    assert seen.returncode == 0, seen.stderr
    assert "12 runs, 60 epochs" in seen.stdout
    sweep = tmp_path / "sweep"
    parallel = ("hydra/launcher=parallel", f"hydra.sweep.dir={sweep}")
    program = forked.Program(tmp_path / "log", "train.py", "-m", *words, *parallel, fresh=True)
    assert program.wait() == 0, program.said
    verdict = json.loads((sweep / "verdict.json").read_text())
    assert verdict["comparisons"][0]["n"] == 6
    found = {"HARNESS_EXTENSIONS": str(ROOT / f"examples/{name}.py")}
    verified = forked.complete("scripts/verify_sweep.py", sweep, env=os.environ | found)
    assert "all rows hold" in verified.stdout, verified.stderr


# --- one line for what does not work -------------------------------------------------------------

WRONG: dict[str, tuple[str, tuple[str, ...], str]] = {
    "a typo in a field": (GOOD, ("model=mine", "model.widht=3"), "model.widht=3: is not a key of the model mine; did you mean width?"),
    "a value out of bounds": (GOOD, ("model=mine", "model.width=10"), "model.width=10: must be a whole number ≥ 1 and ≤ 9"),
    "a typo in the choice": (GOOD, ("model=mien",), "model=mien: did you mean mine?"),
    "a build that raises": (MODEL.format("shape.size"), ("model=mine",), "model=mine: build: AttributeError: 'DatasetShape' object has no attribute 'size' (mine.py, line 11)"),
    "too few outputs": (MODEL.format(NET.format(3)), ("model=mine",), "model=mine: gives torch.float32 (2, 3) for 2 images, in evaluation; must give logits of (2, 4), one for each class"),
    "no network": (MODEL.format("5"), ("model=mine",), "model=mine: build returns a int, not an nn.Module"),
    "a misfit in forward": (MODEL.format("nn.Linear(3, 4)"), ("model=mine",), "model=mine: forward, in evaluation: RuntimeError: mat1 and mat2 shapes cannot be multiplied"),
    "a NaN": (SCHEDULE.format("float('nan') if step > 5 else 1.0"), ("scheduler=mine",), "scheduler=mine: the LR of update 7 is nan; must be a number ≥ 0"),
    "a negative LR": (SCHEDULE.format("1 - step"), ("scheduler=mine",), "scheduler=mine: the LR of update 3 is -0.1; must be a number ≥ 0"),
    "a schedule that raises": (SCHEDULE.format("1 / (4 - step)"), ("scheduler=mine",), "scheduler=mine: step: ZeroDivisionError: division by zero (mine.py, line 8)"),
    "a schedule that moves the momentum": (SCHEDULE.format("optimizer.param_groups[0].update(momentum=0.5) or 1.0"), ("scheduler=mine",), "scheduler=mine: sets momentum; a schedule moves the LR alone"),
    "floats": (DATA.format("pixels = pixels / 255"), ("dataset=mine",), "dataset=mine: read gives pixels of float64 (40, 4, 4, 1); must be uint8 (images, size, size, channels)"),
    "oblong images": (DATA.format("pixels = pixels[:, :3]"), ("dataset=mine",), "dataset=mine: read gives pixels of uint8 (40, 3, 4, 1); must be uint8 (images, size, size, channels)"),
    "too few labels": (DATA.format("labels = labels[1:]"), ("dataset=mine",), "dataset=mine: read gives labels of int64 (39,); must be whole numbers (40,)"),
    "an unknown class": (DATA.format("labels = labels + 1"), ("dataset=mine",), "dataset=mine: read gives the label 2, and 2 classes"),
    "a read that raises": (DATA.format("open('/nowhere')"), ("dataset=mine",), "dataset=mine: read: FileNotFoundError: [Errno 2] No such file or directory: '/nowhere' (mine.py, line 11)"),
    "a claim about test images without any": (DATA.format("pass"), ("dataset=mine", "claim.metric=test/loss"), "claim.metric=test/loss: dataset=mine has no test images; have read return some, or use claim.metric=val/loss"),
    "a metric without a direction": (METRIC.format("unit = '%'"), ("metrics=[mine]",), 'metric=mine: does not say which is better; add better = "higher" or "lower"'),
    "a metric of another direction": (METRIC.format("better = 'more'"), ("metrics=[mine]",), "metric=mine: better=more: must be higher or lower"),
    "a metric of no unit": (METRIC.format("better, unit = 'lower', '${x}'"), ("metrics=[mine]",), "metric=mine: unit=${x}: must be a short text, as % or ms"),
    "a metric that is there": (METRIC.format("better = 'lower'").replace('"mine"', '"loss"'), ("metrics=[loss]",), "metric=loss: is there already; give Mine another name"),
    "a claim about a metric that is not evaluated": (METRIC.format("better = 'lower'"), ("claim.metric=val/mine",), "claim.metric=val/mine: is not evaluated; add metrics=[mine]"),
    "bad grammar": ("def (", ("model=mine",), "SyntaxError: invalid syntax (mine.py, line 1)"),
    "an import that fails": ("import nothing_of_this_name", ("model=mine",), "ModuleNotFoundError: No module named 'nothing_of_this_name' (mine.py, line 1)"),
    "nothing registered": ("x = 1", ("model=mine",), 'registers nothing; put @register("NAME") before a class'),
    "a name that is there": (GOOD.replace('"mine"', '"resnet"'), ("model=resnet8",), "model=resnet: is there already; give Mine another name"),
    "a name that is a value": (GOOD.replace('"mine"', '"nan"'), ("model=resnet8",), "model=nan: must be a name of letters, digits and _, that is no value"),
}  # fmt: skip


@pytest.mark.parametrize(("text", "words", "line"), WRONG.values(), ids=WRONG)
def test_what_does_not_work_is_one_line(
    tmp_path: Path, text: str, words: tuple[str, ...], line: str
) -> None:
    small = [word for word in TINY if not word.startswith("model.")]
    if words[0].startswith("scheduler"):
        small = [word for word in small if not word.startswith("scheduler.")]
    if words[0].startswith("dataset"):
        small = ["trainer.batch_size=8", "tracking=none"]
    code, said = train(tmp_path, write(tmp_path, text), *small, *words)
    assert code == 1
    errors = [one for one in said.splitlines() if one.startswith("error: ")]
    assert len(errors) == 1
    assert "Traceback" not in said
    assert line in errors[0]


@pytest.mark.parametrize(
    ("given", "line"),
    [
        ("extensions=mine.py", "extensions=mine.py: is a list; write extensions=[mine.py]"),
        ("extensions=[nowhere.py]", "nowhere.py]: there is no such file"),
        ("extensions=[no_such_module]", "ModuleNotFoundError: No module named 'no_such_module'"),
        (
            "extensions=[train.sh]",
            "ModuleNotFoundError: No module named 'train.sh'; 'train' is not a package",
        ),
    ],
)
def test_what_cannot_be_loaded_is_one_line(tmp_path: Path, given: str, line: str) -> None:
    code, said = train(tmp_path, given)
    assert code == 1
    assert said.count("\n") == 1
    assert said.startswith("error: extensions=")
    assert line in said


@pytest.mark.parametrize(
    ("files", "words", "line"),
    [
        (["a/mine.py", "b/mine.py"], "extensions=[a/mine.py,b/mine.py]", "Python has another module mine"),
        (["lab/mine.py"], "extensions=[./lab]", "lab]: is a folder; name the file in it that registers a class"),
        (["mine.ipynb"], "extensions=[mine.ipynb]", "must have a name that Python can import, as in mine.py"),
        (["mine.py"], "extensions=[mine]", "ModuleNotFoundError: No module named 'mine'; did you mean mine.py?"),
    ],
)  # fmt: skip
def test_files_that_are_named_wrongly(
    tmp_path: Path, files: list[str], words: str, line: str
) -> None:
    for file in files:
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).write_text(GOOD)
    done = forked.complete("train.py", words, cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert line in done.stderr


@pytest.mark.parametrize("name", ["random.py", "torch.py", "my-model.py"])
def test_a_file_that_python_cannot_import_by_its_name_is_to_be_renamed(
    tmp_path: Path, name: str
) -> None:
    code, said = train(tmp_path, write(tmp_path, GOOD, name), "model=mine", *TINY[:4])
    assert code == 1
    assert "rename the file" in said or "must have a name that Python can import" in said


FILES = f"""{HEAD}
from pathlib import Path
@register("mine")
class Mine(Dataset):
    in_memory = False
    image_size: int = number(at_least=1, default=8)

    def read(self):
        paths = sorted(Path({{!r}}).rglob("*.png"))
        return (paths, [int(path.stem) % 2 for path in paths]), None, ["even", "odd"]
"""


@pytest.mark.slow
def test_a_data_set_may_be_a_list_of_files(tmp_path: Path) -> None:
    images = tmp_path / "images"
    images.mkdir()
    for number in range(40):
        Image.new("RGB", (9, 9), (number, 200 * (number % 2), 0)).save(images / f"{number}.png")
    words = (write(tmp_path, FILES.format(str(images))), "dataset=mine", "model.width=2", "trainer.batch_size=8", "trainer.epochs=5", "tracking=none")  # fmt: skip
    code, said = train(tmp_path, *words)
    assert code == 0, said
    assert "dataset=mine: 2 classes, 32 images to train, 8 to validate, none to test" in said
    assert last_result(tmp_path)["final"]["val/acc"] == 100
    Image.new("RGB", (9, 9), (9, 9, 9)).save(images / "0.png")
    first = last_result(tmp_path)
    code, said = train(tmp_path, *words)
    assert code == 0, said
    assert last_result(tmp_path)["data_sha256"] != first["data_sha256"]
    text = FILES.format(str(images)).replace("in_memory = False", "")
    write(tmp_path, text)
    code, said = train(tmp_path, *words)
    assert code == 1
    assert "dataset=mine: read gives paths, which need a field image_size (pixels), and in_memory = False" in said  # fmt: skip


# --- what is the same run ------------------------------------------------------------------------


def mine(folder: Path, *words: str) -> tuple[dict[str, Any], str]:
    small = [word for word in TINY if not word.startswith("model.")]
    code, said = train(folder, f"extensions=[{folder}/mine.py]", "model=mine", *small, *words)
    assert code == 0, said
    return last_result(folder), said


@pytest.mark.slow
def test_code_that_was_edited_takes_no_checkpoint_of_other_code(tmp_path: Path) -> None:
    write(tmp_path, GOOD)
    first, _ = mine(tmp_path)
    again, said = mine(tmp_path)
    assert again["updates_trained"] == 0
    assert "other code" not in said
    write(tmp_path, f"{GOOD}\n# edited\n")
    edited, said = mine(tmp_path)
    assert edited["updates_reused"] == 0
    assert edited["fingerprint"] != first["fingerprint"]
    assert "warning: the store has checkpoints of these settings, but by other code" in said
    write(tmp_path, GOOD)
    assert mine(tmp_path)[0]["fingerprint"] == first["fingerprint"]


@pytest.mark.slow
def test_the_modules_beside_it_that_it_imports_count_too(tmp_path: Path) -> None:
    write(tmp_path, "x = 1\n", "not_imported.py")
    (tmp_path / "parts").mkdir()
    write(tmp_path / "parts", "", "__init__.py")
    write(tmp_path / "parts", "WIDTH = 3\n", "sizes.py")
    late = GOOD.replace("        return", "        from parts.sizes import WIDTH\n        return")
    write(tmp_path, late)
    first, _ = mine(tmp_path)
    copies = tmp_path / "run0/extensions"
    assert sorted(path.relative_to(copies).as_posix() for path in copies.rglob("*.py")) == [
        "mine.py", "parts/__init__.py", "parts/sizes.py",
    ]  # fmt: skip
    write(tmp_path, "x = 2\n", "not_imported.py")
    assert mine(tmp_path)[0]["updates_trained"] == 0
    write(tmp_path / "parts", "WIDTH = 4\n", "sizes.py")
    assert mine(tmp_path)[0]["fingerprint"] != first["fingerprint"]


@pytest.mark.slow
def test_a_field_counts_unless_it_says_that_it_has_no_effect(tmp_path: Path) -> None:
    write(tmp_path, GOOD)
    first, _ = mine(tmp_path)
    same, _ = mine(tmp_path, "model.workers=2")
    assert (same["fingerprint"], same["updates_trained"]) == (first["fingerprint"], 0)
    assert mine(tmp_path, "model.width=5")[0]["fingerprint"] != first["fingerprint"]


@pytest.mark.slow
def test_the_folder_does_not_count(tmp_path: Path) -> None:
    write(tmp_path, GOOD)
    first, _ = mine(tmp_path)
    (tmp_path / "elsewhere").mkdir()
    override = write(tmp_path / "elsewhere", GOOD)
    small = [word for word in TINY if not word.startswith("model.")]
    code, said = train(tmp_path, override, "model=mine", *small)
    assert code == 0, said
    assert last_result(tmp_path)["fingerprint"] == first["fingerprint"]
    assert last_result(tmp_path)["updates_trained"] == 0


PACKAGE = {  # where code may be, and the word that names it; `shared.py` is imported by it
    "beside the file": ("mine.py", "shared.py", "from shared import WIDTH", "FOLDER/mine.py"),
    "below it": ("mine.py", "parts/shared.py", "from parts.shared import WIDTH", "FOLDER/mine.py"),
    "beside it, by another": ("mine.py", "shared.py", "from between import WIDTH", "FOLDER/mine.py"),
    "in the package": ("lab/mine.py", "lab/shared.py", "from .shared import WIDTH", "lab.mine"),
    "a module of the package": ("lab/mine.py", "lab/shared.py", "from . import shared; WIDTH = shared.WIDTH", "lab.mine"),
    "in a package above": ("lab/nets/mine.py", "lab/shared.py", "from ..shared import WIDTH", "lab.nets.mine"),
    "the whole package": ("lab/__init__.py", "lab/shared.py", "from .shared import WIDTH", "lab"),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("where", essential(PACKAGE))
def test_a_module_that_it_imports_was_edited(tmp_path: Path, where: str) -> None:
    """The environment names it; the checkpoints of the code of then are not used."""
    own, shared, line, word = PACKAGE[where]
    for name in (own, shared):
        for folder in (tmp_path / name).relative_to(tmp_path).parents[:-1]:
            (tmp_path / folder).mkdir(parents=True, exist_ok=True)
            (tmp_path / folder / "__init__.py").touch()
    (tmp_path / "between.py").write_text("from shared import WIDTH\n")
    (tmp_path / own).write_text(f"{line}\n{GOOD}")
    word = word.replace("FOLDER", str(tmp_path))
    env = os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{tmp_path}", "HARNESS_EXTENSIONS": word}
    small = [one for one in TINY if not one.startswith("model.")]
    fresh = not word.endswith(".py")  # it is found by PYTHONPATH, which a forked process has read
    found = []
    for number, value in enumerate(("WIDTH = 3", "WIDTH = 3", "WIDTH = 4")):
        (tmp_path / shared).write_text(f"{value}\n")
        here = (f"store.dir={tmp_path}/store", f"hydra.run.dir={tmp_path}/run{number}")
        log = tmp_path / f"log{number}"
        program = forked.Program(log, "train.py", "model=mine", *small, *here, env=env, fresh=fresh)
        assert program.wait() == 0, program.said
        found.append((last_result(tmp_path), "other code" in program.said))
    (first, _), (again, said), (edited, warned) = found
    assert (again["fingerprint"], again["updates_trained"], said) == (
        first["fingerprint"],
        0,
        False,
    )
    assert (edited["updates_reused"], warned) == (0, True)
    assert edited["fingerprint"] != first["fingerprint"]
    copies = {path.relative_to(tmp_path / "run0/extensions").as_posix() for path in (tmp_path / "run0/extensions").rglob("*.py")}  # fmt: skip
    assert {own, shared} <= copies


# --- whose code is loaded ------------------------------------------------------------------------


@pytest.mark.slow
def test_the_environment_and_modules_name_extensions_too(tmp_path: Path) -> None:
    write(tmp_path, GOOD)
    small = [word for word in TINY if not word.startswith("model.")]
    code, said = train(tmp_path, "model=mine", *small, env={**os.environ, "HARNESS_EXTENSIONS": f"{tmp_path}/mine.py"})  # fmt: skip
    assert code == 0, said
    first = last_result(tmp_path)
    path = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{tmp_path}"}
    words = ("train.py", "extensions=[mine]", "model=mine", *small, f"store.dir={tmp_path}/store", f"hydra.run.dir={tmp_path}/run9")  # fmt: skip
    program = forked.Program(tmp_path / "log", *words, env=path, fresh=True)
    assert program.wait() == 0, program.said
    assert last_result(tmp_path)["fingerprint"] == first["fingerprint"]


def test_no_file_of_a_sweep_loads_code(tmp_path: Path) -> None:
    """A plan, a configuration and a result of somebody else's name code, and nothing runs it."""
    sign = tmp_path / "sign"
    override = write(tmp_path, f"{GOOD}\nopen({str(sign)!r}, 'w').close()\n")
    small = [word for word in TINY if not word.startswith("model.")]
    words = ("-m", "model=mine", *small, "scheduler.t_mult=1,2", f"store.dir={tmp_path}/store", f"hydra.sweep.dir={tmp_path}/sweep")  # fmt: skip
    done = forked.complete("train.py", override, *words)
    assert done.returncode == 0, done.stderr
    sign.unlink()
    for script in ("report.py", "verify_sweep.py", "snapshot_ensemble.py"):
        done = forked.complete(f"scripts/{script}", tmp_path / "sweep")
        assert "Traceback" not in done.stderr
        assert not sign.exists()
        if script == "verify_sweep.py":
            assert "model=mine: is of an extension; name it in the environment" in done.stderr
    (tmp_path / "conf/experiment").mkdir(parents=True)
    (tmp_path / "conf/experiment/theirs.yaml").write_text(
        f"# @package _global_\nextensions: [{tmp_path}/mine.py]\n"
    )
    code, said = train(tmp_path, "--config-dir", f"{tmp_path}/conf", "experiment=theirs")
    assert (code, sign.exists()) == (1, False)
    assert "stands in a file of the configuration, which loads no code" in said


def swept(tmp_path: Path) -> tuple[str, tuple[str, ...]]:
    """A sweep with code of one's own; what named the code, and the other words of its command."""
    override = write(tmp_path, GOOD)
    small = [word for word in TINY if not word.startswith("model.")]
    words = ("-m", "model=mine", *small, "scheduler.t_mult=1,2", f"store.dir={tmp_path}/store", f"hydra.sweep.dir={tmp_path}/sweep")  # fmt: skip
    done = forked.complete("train.py", override, *words)
    assert done.returncode == 0, done.stderr
    return override, words


@pytest.mark.slow
def test_a_sweep_does_not_go_on_with_code_that_was_edited(tmp_path: Path) -> None:
    override, words = swept(tmp_path)
    write(tmp_path, f"{GOOD}\n# edited\n")
    done = forked.complete("train.py", override, *words)
    assert done.returncode == 1
    assert "holds the sweep of other code, model=mine was edited since; undo that" in done.stderr
    found = {"HARNESS_EXTENSIONS": f"{tmp_path}/mine.py"}
    said = forked.complete("scripts/verify_sweep.py", tmp_path / "sweep", env=os.environ | found)
    assert "model=mine: its code is not that of then" in said.stderr


@pytest.mark.slow
def test_processes_of_torchrun_load_it_and_go_on_when_they_were_killed(tmp_path: Path) -> None:
    """With a path from where the command is given, which is not the checkout."""
    write(tmp_path, GOOD)
    small = [word for word in TINY if not word.startswith("model.")]
    long = ("trainer.epochs=60", "scheduler.t_0=60", "trainer.device=cpu", "trainer.batch_size=15", "trainer.checkpoint_every=0.05")  # fmt: skip
    words = ("extensions=[mine.py]", "model=mine", *last_given([*small, *long]))
    ends = []
    for name in ("killed", "whole"):
        run = tmp_path / name
        where = (f"hydra.run.dir={run}", f"store.dir={run}.store")
        command = torchrun(2, ROOT / "train.py", *words, *where)
        if name == "killed":
            with subprocess.Popen(command, cwd=tmp_path, env=environment()) as started:
                wait_for_rows(run, 100)
                for worker in (
                    Path(f"/proc/{started.pid}/task/{started.pid}/children").read_text().split()
                ):
                    os.kill(int(worker), signal.SIGKILL)
        done = subprocess.run(
            command, cwd=tmp_path, env=environment(), capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        ends.append(json.loads((run / "result.json").read_text()))
    assert ends[0]["updates_reused"] > 0
    assert ends[0]["numerics"]["processes"] == 2
    assert ends[0]["weights_sha256"] == ends[1]["weights_sha256"]
    assert ends[0]["config"]["extensions"] == [str(tmp_path / "mine.py")]


@pytest.mark.slow
def test_a_yaml_file_beside_it_has_other_defaults(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model/wide.yaml").write_text(
        "defaults: [/schema/model/mine@_here_, _self_]\nwidth: 7\n"
    )
    small = [word for word in TINY if not word.startswith("model.")]
    for words in (("--config-dir", str(tmp_path)), (f"hydra.searchpath=[{tmp_path}]",)):
        code, said = train(tmp_path, write(tmp_path, GOOD), *words, "model=wide", *small)
        assert code == 0, said
        assert last_result(tmp_path)["config"]["model"]["width"] == 7


@pytest.mark.slow
def test_a_plan_that_names_other_code_is_refused(tmp_path: Path) -> None:
    """The plan of a sweep that somebody else has written: its code is not loaded, and the mismatch is named."""
    _, words = swept(tmp_path)
    own, theirs = tmp_path / "own", tmp_path / "theirs"
    for folder in (own, theirs):
        folder.mkdir()
    sign = tmp_path / "sign"
    write(theirs, f"{GOOD}\nopen({str(sign)!r}, 'w').close()\n")
    for path in (tmp_path / "sweep/plan.json", *tmp_path.glob("sweep/*/*.json")):
        path.write_text(
            path.read_text().replace(str(tmp_path / "mine.py"), str(theirs / "mine.py"))
        )
    found = os.environ | {"HARNESS_EXTENSIONS": str(tmp_path / "mine.py")}
    verified = forked.complete("scripts/verify_sweep.py", tmp_path / "sweep", env=found)
    assert "all rows hold" in verified.stdout, verified.stderr
    forked.complete("scripts/report.py", tmp_path / "sweep")
    done = forked.complete("train.py", write(own, f"{GOOD}\n# another\n"), *words)
    assert "holds the sweep of other code, model=mine was edited since" in done.stderr
    assert not sign.exists()


@pytest.mark.slow
def test_a_sweep_does_not_go_on_with_a_metric_that_was_edited(tmp_path: Path) -> None:
    text = METRIC.format('better = "lower"')
    sweep = tmp_path / "sweep"
    words = ("-m", write(tmp_path, text), "metrics=[mine]", *TINY, "scheduler.t_mult=1,2", f"store.dir={tmp_path}/store", f"hydra.sweep.dir={sweep}")  # fmt: skip
    done = forked.complete("train.py", *words)
    assert done.returncode == 0, done.stderr
    write(tmp_path, text.replace("1.0", "2.0"))
    done = forked.complete("train.py", *words)
    assert done.returncode == 1
    edited = "metrics=[mine] was edited since; undo that"
    assert f"holds the sweep of other code, {edited}" in done.stderr
    found = {"HARNESS_EXTENSIONS": f"{tmp_path}/mine.py"}
    said = forked.complete("scripts/verify_sweep.py", sweep, env=os.environ | found)
    assert "metrics=[mine]: its code is not that of then" in said.stderr
    said = forked.complete("scripts/verify_sweep.py", sweep)
    assert "metrics=[mine]: is of an extension; name it in the environment" in said.stderr


def test_help_lists_what_an_extension_adds(tmp_path: Path) -> None:
    code, said = train(tmp_path, write(tmp_path, GOOD), "--help")
    assert code == 0
    assert "  model           mine  resnet8*" in said
