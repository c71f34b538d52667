"""What makes no sense ends in one line that names the key and the fix, and takes nothing with it.

Every case goes through the command line: exit code 1, no traceback, no run that is called complete,
and what was there before is there afterwards, byte for byte.
"""

# mypy: disable-error-code="func-returns-value"

from __future__ import annotations

import gzip
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import forked
import numpy as np
import pytest
from conftest import ROOT, Main, essential, need
from hydra import initialize_config_dir
from PIL import Image

from harness.config import one_line_errors as errors
from harness.runs.setup import lr_plan
from harness.sweeps import compose

BASE = (
    "dataset=synthetic", "dataset.images=200", "dataset.classes=4", "dataset.image_size=4",
    "model.width=2", "trainer.epochs=2", "trainer.batch_size=32", "scheduler.t_0=1", "tracking=none",
)  # fmt: skip


def words(*overrides: str) -> list[str]:
    """`BASE` and `overrides`; what belongs to a group that they choose anew is left out."""
    groups = {word.partition("=")[0] for word in overrides if "." not in word.partition("=")[0]}
    kept = [word for word in BASE if word.partition("=")[0].partition(".")[0] not in groups]
    return [
        *(word for word in overrides if word == "-m"),
        *kept,
        *(word for word in overrides if word != "-m"),
    ]


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name != ".lock" and path.parent.name != ".hydra"  # Hydra's own
    }


@pytest.fixture
def refused(tmp_path: Path, main: Main) -> Callable[..., str]:
    """The one line that a command ends in, after a look at all that must be so besides."""
    number = 0
    kept = tmp_path / "kept"
    kept.mkdir()
    (kept / "history.jsonl").write_text("{}\n")

    def run(*overrides: str) -> str:
        nonlocal number
        number += 1
        before = contents(tmp_path)
        places = [f"hydra.{kind}.dir={tmp_path}/{kind}{number}" for kind in ("run", "sweep")]
        where = [*places, f"store.dir={tmp_path}/store"]
        given = [word.partition("=")[0] for word in overrides]
        done = main(*words(*overrides), *(w for w in where if w.partition("=")[0] not in given))
        assert done.returncode == 1, done
        assert "Traceback" not in done.stdout + done.stderr
        lines = [line for line in done.stderr.splitlines() if not line.startswith("warning: ")]
        assert [line[:7] for line in lines] == ["error: "], done.stderr
        after = contents(tmp_path)
        assert {name: after.get(name) for name in before} == before, "something is gone or changed"
        results = [json.loads(after[name]) for name in after if name.endswith("result.json")]
        assert "complete" not in [result["status"] for result in results]
        return lines[0].removeprefix("error: ")

    return run


# --- every number, wrong in every way ------------------------------------------------------------

NUMBERS = (
    "scheduler.t_0", "scheduler.t_mult", "scheduler.eta_min", "scheduler.warmup", "optimizer.lr",
    "scheduler.decay", "scheduler.cycle_warmup",
    "optimizer.momentum", "optimizer.weight_decay", "trainer.epochs", "trainer.batch_size",
    "trainer.label_smoothing", "trainer.evals_per_epoch", "trainer.log_every", "dataset.images",
    "trainer.checkpoint_every", "dataset.val_size", "dataset.test_size", "dataset.train_size",
    "dataset.split_seed", "dataset.crop", "dataset.noise", "dataset.classes", "dataset.image_size",
    "dataset.channels", "model.depth", "model.width", "claim.margin", "claim.level", "seed",
    "dataset.resized_crop", "dataset.rand_augment", "dataset.erase",
)  # fmt: skip
WRONG = ("-1", "nan", "inf", "1e30", "", "[]", "[1,2]", "{a: 1}", "two", "???")
SENSIBLE = {("trainer.checkpoint_every", "1e30")}  # never


@pytest.mark.parametrize("key", NUMBERS)
def test_a_number_that_is_none(refused: Callable[..., str], key: str) -> None:
    """By the command line with one of the values; with the others, as it explains each run's error."""
    shown = WRONG[NUMBERS.index(key) % len(WRONG)]
    for value in WRONG:
        if (key, value) in SENSIBLE:
            continue
        line = refused(f"{key}={value}") if value == shown else explained(f"{key}={value}")
        assert line is not None, f"{key}={value} is taken"
        assert line.startswith((f"{key}={value}: ", f"{key}: ", f"{key}=")), line
        assert any(word in line for word in ("must be", "choose from", "has no value", "takes")), (
            line
        )


def explained(override: str) -> str | None:
    """The line about a run with `override`; None if it can be planned."""
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        try:
            lr_plan(compose.compose(words(override)).config)
        except Exception as error:
            return errors.explain(error)
    return None


# --- one case for each of the other mistakes -----------------------------------------------------

CASES: dict[str, tuple[list[str], str, str]] = {  # overrides; how the line begins; what it says
    # words
    "device": (["trainer.device=gpu"], "trainer.device=gpu: ", "choose from auto, cpu, cuda"),
    "empty device": (["trainer.device="], "trainer.device=", "choose from auto"),
    "device as a list": (["trainer.device=[cpu]"], "trainer.device=[cpu]: ", "must be text"),
    "precision": (["trainer.precision=fp8"], "trainer.precision=fp8: ", "choose from auto, fp32"),
    "compile": (["trainer.compile=max"], "trainer.compile=max: ", "choose from none, default"),
    "truth": (["trainer.deterministic=perhaps"], "trainer.deterministic=perhaps: ", "true or false"),
    "truth in words": (["dataset.flip=often"], "dataset.flip=often: ", "true or false"),
    "no truth": (["reuse=null"], "reuse=null: ", "true or false"),
    "interval": (["scheduler.interval=step"], "scheduler.interval=step: ", "batch, epoch"),
    "unit": (["scheduler.unit=seconds"], "scheduler.unit=seconds: ", "epoch, batch"),
    "keep": (["store.keep=all"], "store.keep=all: ", "choose from cycles, last, none"),
    "metric": (["claim.metric=val/los"], "claim.metric=val/los: ", "did you mean val/loss? choose from val/acc, test/acc"),
    "mode": (["tracking=wandb", "tracking.mode=on"], "tracking.mode=on: ", "choose from auto, online"),
    "tags": (["tracking=wandb", "tracking.tags=a"], "tracking.tags=a: ", "list of texts"),
    "milestones": (["scheduler=multistep", "scheduler.milestones=[2,1]"], "scheduler.milestones=[2,1]", "rising"),
    "no milestone": (["scheduler=multistep", "scheduler.milestones=[]"], "scheduler.milestones=[]", "rising"),
    "gamma 0": (["scheduler=step", "scheduler.gamma=0"], "scheduler.gamma=0", "> 0"),
    "cooldown 0": (["scheduler=wsd", "scheduler.cooldown=0"], "scheduler.cooldown=0", "> 0"),
    "pct_start 1": (["scheduler=one_cycle", "scheduler.pct_start=1"], "scheduler.pct_start=1", "< 1"),
    "beta 1": (["optimizer=adamw", "optimizer.beta1=1"], "optimizer.beta1=1", "< 1"),
    # names
    "misspelt key": (["trainer.epoch=3"], "trainer.epoch=3: ", "did you mean epochs?"),
    "misspelt group": (["modell=resnet8"], "modell=resnet8: ", "did you mean model?"),
    "misspelt model": (["model=resnet9"], "model=resnet9: ", "did you mean resnet"),
    "misspelt data set": (["dataset=cifar"], "dataset=cifar: ", "did you mean cifar10?"),
    "misspelt optimizer": (["optimizer=sdg"], "optimizer=sdg: ", "did you mean sgd?"),
    "misspelt scheduler": (["scheduler=cosine-warm"], "scheduler=cosine-warm: ", "did you mean cosine_warm?"),
    "misspelt launcher": (["hydra/launcher=slurmm"], "hydra/launcher=slurmm: ", "did you mean slurm?"),
    "misspelt experiment": (["+experiment=claim"], "experiment=claim: ", "choose from"),
    "key of another group": (["scheduler.lr=1"], "scheduler.lr=1: ", "is not a key of the scheduler"),
    "key of nothing": (["+nothing=1"], "nothing=1: ", "is neither a key nor a group"),
    "a key too many": (["+trainer.patience=3"], "trainer.patience=3: ", "is not a key of the trainer"),
    "a group as null": (["model=null"], "model=null: ", "name of one of its choices"),
    "torchvision's": (["model=torchvision", "model.arch=resnet17", "model.stem=small"], "model.arch=resnet17: ", "did you mean resnet18?"),
    "factor": (["-m", "scheduler.t_mult=1,2", "claim.factor=seed"], "claim.factor=seed: ", "is not swept"),
    "baseline": (["-m", "scheduler.t_mult=1,2", "claim.baseline=3"], "claim.baseline=3: ", "has the levels 1, 2"),
    "treatments": (["-m", "scheduler.t_mult=1,2", "claim.treatments=[3]"], "claim.treatments=3: ", "has the levels"),
    # syntax
    "bracket": (["scheduler.milestones=[1"], "scheduler.milestones=[1: ", "brackets must close"),
    "no value": (["seed"], "seed: ", "has no value; give one with seed=VALUE"),
    "only a value": (["=3"], "=3: ", "group"),
    "sweep without -m": (["seed=1,2"], "seed=1,2: ", "need -m"),
    "quote": (["seed='1"], "seed='1: ", "need quotes"),
    "interpolation": (["trainer.epochs=${epochs}"], "trainer.epochs=${epochs}: ", "not found"),
    "too many runs": (["-m", "seed=range(0,1000000000)"], "the sweep has 1,000,000,000 runs", "at most 100,000"),
    "too many choices": (["-m", "seed=range(0,1000)", "optimizer.lr=range(1,1000)"], "the sweep has 999,000 runs", "at most 100,000"),
    # what does not go together
    "t_mult between": (["scheduler.t_mult=1.5"], "scheduler.t_mult=1.5: ", "whole number"),
    "t_mult 0": (["scheduler.t_mult=0"], "scheduler.t_mult=0: ", "≥ 1"),
    "t_0 beyond the budget": (["scheduler.t_0=3"], "scheduler.t_0=3: ", "does not fit into the budget, trainer.epochs=2"),
    "t_0 between updates": (["scheduler.t_0=1.1"], "scheduler.t_0=1.1: ", "not a whole number of updates"),
    "t_0 between epochs": (["scheduler.t_0=1.5", "scheduler.interval=epoch"], "scheduler.t_0=1.5: ", "epoch"),
    "t_max 0": (["scheduler=cosine", "scheduler.t_max=0"], "scheduler.t_max=0: ", "> 0"),
    "a part of an update": (["trainer.epochs=0.01"], "trainer.epochs=0.01: ", "update"),
    "warmup of all": (["scheduler.warmup=2"], "scheduler.warmup=2: ", "trainer.epochs=2"),
    "one_cycle with warmup": (["scheduler=one_cycle", "scheduler.warmup=1"], "scheduler.warmup=1: ", "pct_start"),
    "cooldown beyond the budget": (["scheduler=wsd", "scheduler.cooldown=3"], "scheduler.cooldown=3: ", "trainer.epochs=2"),
    "LRs as points": (["scheduler=piecewise", "scheduler.points=[0:0.1,2:0]"], "scheduler.points=[0:0.1,2:0]: ", "give optimizer.lr=0.1"),
    "too many values": (["scheduler=list", "scheduler.values=[1,1,1]"], "scheduler.values: ", "trainer.epochs=2 takes 2"),
    "no file of values": (["scheduler=list", "scheduler.file=/none/of/it"], "scheduler.file=/none/of/it: ", "No such file"),
    "floor above the peak": (["scheduler.eta_min=1"], "scheduler.eta_min=1: ", "optimizer.lr=0.1"),
    "nesterov without momentum": (["optimizer.nesterov=true", "optimizer.momentum=0"], "optimizer.nesterov=true: ", "momentum > 0"),
    "batches with epochs": (["scheduler.unit=batch", "scheduler.interval=epoch"], "scheduler.unit=batch: ", "interval=batch"),
    "batch beyond the data": (["trainer.batch_size=4096"], "trainer.batch_size=4096: ", "at most the number of training images"),
    "evaluations beyond updates": (["trainer.evals_per_epoch=99"], "trainer.evals_per_epoch=99: ", "has only 4 updates"),
    "depth between": (["model.depth=9"], "model.depth=9: ", "nearest are 8 and 14"),
    "fp16 without a GPU": (["trainer.device=cpu", "trainer.precision=fp16"], "trainer.precision=fp16: ", "use fp32 or bf16"),
    "a GPU that is not there": (["trainer.device=cuda:77"], "trainer.device=cuda:77: ", "use trainer.device=auto or cpu"),
    "stem too large": (["model=torchvision", "model.arch=resnet18", "model.stem=imagenet", "dataset.image_size=8"], "model.stem=imagenet: ", "small"),
    "network too deep for the image": (["model=torchvision", "model.arch=vgg11", "model.stem=small", "dataset.image_size=8"], "model.", "vgg11"),
    # data
    "validation takes all": (["dataset.val_size=160"], "dataset.val_size=160: ", "some must be left"),
    "a part of an image": (["dataset.val_size=1.5"], "dataset.val_size=1.5: ", "share below 1 or a whole number"),
    "a class without images": (["dataset.classes=100"], "dataset.test_size=", "takes none of the 2 images of class "),
    "an empty share": (["dataset.val_size=1e-9"], "dataset.val_size=1e-09: ", "takes 0 images"),
    "more than there is": (["dataset.train_size=1000"], "dataset.train_size=1000: ", "takes 1000 images, there are"),
    "no root": (["dataset=image_folder"], "dataset.root: ", "has no value; give one with dataset.root=VALUE"),
    # what other programs call so, and what is a part of the name
    "lr alone": (["lr=0.05"], "lr=0.05: ", "did you mean optimizer.lr?"),
    "epochs alone": (["epochs=3"], "epochs=3: ", "did you mean trainer.epochs?"),
    "batch_size alone": (["batch_size=64"], "batch_size=64: ", "did you mean trainer.batch_size?"),
    "learning_rate": (["learning_rate=0.1"], "learning_rate=0.1: ", "did you mean optimizer.lr?"),
    "learning rate of the optimizer": (["optimizer.learning_rate=0.1"], "optimizer.learning_rate=0.1: ", "did you mean optimizer.lr?"),
    "num_epochs": (["num_epochs=3"], "num_epochs=3: ", "did you mean trainer.epochs?"),
    "device alone": (["device=cpu"], "device=cpu: ", "did you mean trainer.device?"),
    "output_dir": (["output_dir=x"], "output_dir=x: ", "did you mean hydra.run.dir?"),
    "lr in the trainer": (["trainer.lr=0.1"], "trainer.lr=0.1: ", "did you mean optimizer.lr?"),
    "torch's spelling": (["scheduler.T_0=5"], "scheduler.T_0=5: ", "did you mean t_0?"),
    "torch's spelling alone": (["T_mult=2"], "T_mult=2: ", "did you mean scheduler.t_mult?"),
    "a key of another scheduler": (["scheduler.t_max=5"], "scheduler.t_max=5: ", "but of cosine;"),
    "a key of another optimizer": (["optimizer.beta1=0.8"], "optimizer.beta1=0.8: ", "but of adamw;"),
    "a key of other data": (["dataset.root=/data"], "dataset.root=/data: ", "but of cifar10, cifar100, "),
    "adam": (["optimizer=adam"], "optimizer=adam: ", "did you mean adamw?"),
    "a dash": (["model=resnet-20"], "model=resnet-20: ", "did you mean resnet20?"),
    "capitals": (["dataset=CIFAR10"], "dataset=CIFAR10: ", "did you mean cifar10?"),
    "mnits": (["dataset=mnits"], "dataset=mnits: ", "did you mean mnist?"),
    "a classifier of torchvision": (["model=vit_b_16"], "model=vit_b_16: ", "did you mean model=torchvision model.arch=vit_b_16?"),
    "a ResNet of torchvision": (["model=resnet50"], "model=resnet50: ", "did you mean model=torchvision model.arch=resnet50?"),
    "a scheduler as a model": (["model=linear"], "model=linear: ", "did you mean scheduler=linear?"),
    "a list of choices": (["scheduler=[step,cosine]"], "scheduler=[step,cosine]: ", "write -m scheduler=step,cosine"),
    "a list of choices of one kind": (["model=[resnet8,resnet20]"], "model=[resnet8,resnet20]: ", "write -m model=resnet8,resnet20"),
    "a group taken away": (["~tracking=none"], "tracking: ", "a run needs one; choose"),
    "a key of one of the swept": (["-m", "scheduler=cosine,linear", "scheduler.t_max=5"], "scheduler.t_max=5: is a key of cosine, and not of linear; ", "make arms: "),
    "a key of none of the swept": (["-m", "scheduler=cosine,linear", "scheduler.tmax=5"], "scheduler.tmax=5: is not a key of cosine, linear; ", "did you mean t_max? choose from warmup, interval, unit, t_max, eta_min"),
    "a key of others than the swept": (["-m", "scheduler=cosine,linear", "scheduler.t_mult=2"], "scheduler=cosine: scheduler.t_mult=2: ", "is not a key of cosine, linear, but of cosine_warm; choose from warmup, "),
    "a key of one of the arms": (["-m", "arm=times_1,linear", "scheduler.t_max=5"], "scheduler.t_max=5: ", "an arm sets its own keys in its file"),
    "data that are not there": (["dataset=imagenet"], "dataset=imagenet: ", "dataset=image_folder dataset.root=PATH"),
    "an arm as a scheduler": (["scheduler=times_2"], "scheduler=times_2: ", "did you mean arm=times_2?"),
    "a scheduler as an arm": (["arm=cosine_warm"], "arm=cosine_warm: ", "did you mean scheduler=cosine_warm?"),
    "an arm that is nowhere": (["arm=mine"], "arm=mine: ", "FOLDER/arm/NAME.yaml with --config-dir FOLDER"),
    "offline as a choice": (["tracking=offline"], "tracking=offline: ", "did you mean tracking.mode=offline?"),
    "a part of the factor": (["-m", "scheduler.t_mult=1,2", "seed=0,1", "claim.factor=t_mult"], "claim.factor=t_mult: ", "did you mean scheduler.t_mult?"),
    "a part of tuned_over": (["-m", "scheduler.t_mult=1,2", "optimizer.lr=0.1,0.2", "claim.factor=scheduler.t_mult", "claim.tuned_over=lr"], "claim.tuned_over=lr: ", "did you mean optimizer.lr?"),
    "a part of the tuned key": (["-m", "scheduler.t_mult=1,2", "claim.tune=lr", "claim.grid=[0.1,0.2]"], "", "did you mean optimizer.lr?"),
    # what shells and hands do
    "a space behind a comma": (["-m", "scheduler.t_mult=1,", "2"], "scheduler.t_mult=1,: ", "write scheduler.t_mult=1,2"),
    "a space before a comma": (["-m", "scheduler.t_mult=1", ",2"], ",2: ", "write scheduler.t_mult=1,2"),
    "a comma at the end": (["-m", "seed=0,1,"], "seed=0,1,: ", "write seed=0,1"),
    "spaces around =": (["scheduler.t_mult", "=", "1"], "scheduler.t_mult: ", "write scheduler.t_mult=1"),
    "a space behind =": (["scheduler.t_mult=", "1"], "", "write scheduler.t_mult=1"),
    "a space in a list": (["claim.grid=[0.1,", "0.2]"], "claim.grid=[0.1,: ", "write claim.grid=[0.1,0.2]"),
    "a range with dots": (["seed=1..3"], "seed=1..3: ", "-m 'seed=range(1,4)'"),
    "a range with a dash": (["seed=0-9"], "seed=0-9: ", "0 to 9 is -m 'seed=range(0,10)'"),
    "seeds": (["-m", "seeds=0,1"], "seeds=0: is neither a key nor a group; did you mean seed? choose from ", "trainer"),
    "seeds without -m": (["seeds=0,1"], "seeds=0,1: is neither a key nor a group; did you mean seed? choose from ", "trainer"),
    "a level twice": (["-m", "scheduler.t_mult=1,1"], "scheduler.t_mult=1,1: ", "has 1 twice"),
    "full-width commas": (["-m", "scheduler.t_mult=1，2"], "scheduler.t_mult=1，2: ", "write scheduler.t_mult=1,2"),
    "full-width =": (["seed＝1"], "seed＝1: ", "write seed=1"),
    "quotes of a text": (["seed=“1”"], "seed=“1”: ", 'write seed="1"'),
    "= twice": (["scheduler==cosine"], "scheduler==cosine: ", "write scheduler=cosine"),
    "a semicolon": (["-m", "seed=0;1"], "seed=0;1: ", "write seed=0,1"),
    "a key behind a choice": (["scheduler=cosine_warm,t_mult=2"], "scheduler=cosine_warm,t_mult=2: ", "write scheduler=cosine_warm scheduler.t_mult=2"),
    "a choice behind a point": (["scheduler.cosine"], "scheduler.cosine: ", "is chosen by scheduler=cosine"),
    "a title without quotes": (["claim.title=Doubling", "cycles"], "cycles: is no KEY=VALUE; ", "a value with spaces needs quotes"),
    "a list with spaces": (["scheduler=multistep", "scheduler.milestones=1 2"], "scheduler.milestones=1 2: ", "write scheduler.milestones=[1,2]"),
    "a colon": (["scheduler:cosine"], "scheduler:cosine: ", "write scheduler=cosine"),
    "a list for a sweep": (["-m", "seed=[0,1]"], "seed=[0,1]: ", "-m seed=0,1"),
    "a range without its brackets": (["seed=range"], "seed=range: ", "'seed=range(0,10)'"),
    "a percentage": (["dataset.val_size=20%"], "dataset.val_size=20%: ", "20 % is 0.2"),
    "a percentage as a number": (["claim.level=5"], "claim.level=5: ", "5 % is 0.05"),
    "a percentage of no share": (["trainer.epochs=20%"], "trainer.epochs=20%: must be a number > 0 and ≤ 1000000", ""),
    "a percentage as a duration": (["scheduler.warmup=5%"], "scheduler.warmup=5%: ", "durations count epochs"),
    "a margin in percent": (["claim.margin=1%"], "claim.margin=1%: ", "points have no %"),
    "a decimal comma": (["optimizer.lr=0,05"], "optimizer.lr=0,05: ", "a fraction has a point, 0.05"),
    "a decimal comma like two values": (["optimizer.lr=0,1"], "optimizer.lr=0,1: ", "a fraction has a point, 0.1"),
    "a decimal comma in a sweep": (["-m", "optimizer.lr=0,1"], "lr=0: optimizer.lr=0: ", "a fraction has a point, 0.1"),
    "a list without -m": (["claim.grid=0.1,0.2"], "claim.grid=0.1,0.2: several values need -m; ", "claim.grid=[0.1,0.2]"),
    "a home folder": (["store.dir=~/store"], "store.dir=~/store: ", "write store.dir=$HOME/store"),
    "a choice without its group": (["cosine"], "cosine: ", "write scheduler=cosine"),
    "an arm or a scheduler": (["linear"], "linear: ", "write scheduler=linear or arm=linear"),
    "a file of conf": (["conf/scheduler/cosine.yaml"], "conf/scheduler/cosine.yaml: ", "is chosen by scheduler=cosine"),
    "a whole number with an exponent": (["trainer.batch_size=1e1"], "trainer.batch_size=1e1: ", "; write 10"),
    "dashes before a key": (["--epochs=3"], "--epochs=3: ", "did you mean trainer.epochs=3?"),
    "a long dash": (["–m"], "–m: ", "write -m"),
    "a long dash before a key": (["—seed=1"], "—seed=1: ", "write seed=1"),
    "seeds of an empty range": (["-m", "seed=range(6,0)"], "seed=range(6,0): ", "holds no value"),
    "dashes and a space": (["--batch-size", "64"], "--batch-size: ", "did you mean trainer.batch_size=VALUE?"),
    "a ledger of none": (["ledger.path=none"], "ledger.path=none: ", "without a ledger it is ledger.path=null"),
    "a misspelt option": (["--mulitrun"], "--mulitrun: ", "did you mean --multirun?"),
    "an option of other programs": (["--resume"], "--resume: is no option; ", "hydra.run.dir=FOLDER"),
    "an option that is nowhere": (["--verbose"], "--verbose: is no option; ", "see --help"),
    "two options of which one is taken": (["--run", "--cfg", "job"], "give one of --run, ", "--cfg"),
    "a configuration that is not there": (["--config-name", "foo"], "Cannot find primary config 'foo'", "in your config search path."),
    "an option with a value": (["--multirun=true"], "--multirun/-m: ", "takes no value"),
    "a folder of choices that is not there": (["--config-dir", "/nowhere"], "--config-dir ", "/nowhere: there is no such folder"),
    # places
    "a folder below a file": (["hydra.run.dir={tmp}/kept/history.jsonl/run"], "", "history.jsonl"),
    "a folder that is a file": (["hydra.run.dir={tmp}/kept/history.jsonl"], "", "history.jsonl"),
    "a folder where none can be": (["hydra.run.dir=/proc/run"], "", "/proc/run"),
    "a sweep where none can be": (["-m", "seed=1,2", "hydra.sweep.dir=/proc/sweep"], "", "/proc/sweep"),
    "a folder without a name": (["hydra.run.dir="], "hydra.run.dir", "has no value"),
    "an endless name": (["hydra.run.dir={tmp}/" + "a" * 300], "", "name too long"),
}  # fmt: skip


@pytest.mark.parametrize(("overrides", "begins", "says"), CASES.values(), ids=CASES)
def test_a_mistake(
    refused: Callable[..., str], tmp_path: Path, overrides: list[str], begins: str, says: str
) -> None:
    line = refused(*(word.replace("{tmp}", str(tmp_path)) for word in overrides))
    assert line.startswith(begins)
    assert says in line


@pytest.mark.parametrize(
    "words", [("seed=0", "-m"), ("seed=0", "-m", "model.width=1"), ("-m", "seed=0")]
)
def test_options_may_stand_anywhere(main: Main, tmp_path: Path, words: tuple[str, ...]) -> None:
    done = main(*BASE, *words, f"hydra.sweep.dir={tmp_path}/sweep", f"store.dir={tmp_path}/store")
    assert done.returncode == 0, done.stderr
    assert [path.name for path in tmp_path.glob("sweep/*/result.json")] == ["result.json"]


def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing answers, as without a network."""
    for name in ("http_proxy", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)


@pytest.mark.parametrize("name", essential(["cifar10", "mnist", "svhn", "fashion_mnist"]))
@pytest.mark.parametrize("mode", [(), ("-m", "seed=0,1")])
def test_data_that_cannot_be_downloaded(
    refused: Callable[..., str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    mode: tuple[str, ...],
) -> None:
    """A sweep says it once, before any run."""
    offline(monkeypatch)
    line = refused(*mode, f"dataset={name}", f"dataset.root={tmp_path}/data")
    assert line.startswith(f"dataset={name}: cannot be downloaded (")
    assert "Connection refused" in line
    assert f"files into {tmp_path}/data/" in line
    assert "HARNESS_DATA" in line
    assert not list(tmp_path.glob("sweep*/*/result.json"))


def test_uploading_without_a_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`scripts/wandb_sync.py` of an offline run says that there is no key, and not how to train offline."""
    folder = tmp_path / "run/wandb/offline-run-20260101_000000-abc"
    folder.mkdir(parents=True)
    (tmp_path / "run/result.json").write_text("{}")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    done = forked.complete("scripts/wandb_sync.py", tmp_path)
    said = "W&B: there is no key on this machine; run `wandb login`, or set WANDB_API_KEY"
    assert (done.returncode, done.stderr) == (1, f"error: {said}\n")


def test_there_are_enough_cases() -> None:
    assert len(CASES) >= 100


# --- data files ----------------------------------------------------------------------------------

FASHION = ROOT / "data/FashionMNIST/raw"


def unreadable(path: Path) -> None:
    path.unlink()
    path.mkdir()


def of_another_kind(path: Path) -> None:
    path.write_bytes(gzip.compress(b"<html>not found</html>"))


def cut(path: Path) -> None:
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size // 2)


def relabel(path: Path, label: int, other: int, once: bool = False) -> None:
    content = path.read_bytes()
    path.write_bytes(
        content[:8] + content[8:].replace(bytes([label]), bytes([other]), 1 if once else -1)
    )


def narrow(path: Path) -> None:
    """The same pixels, as images of 14 x 56."""
    content = bytearray(path.read_bytes())
    content[8:16] = (14).to_bytes(4, "big") + (56).to_bytes(4, "big")
    path.write_bytes(content)


FILES: dict[str, tuple[str, Callable[[Path], object]]] = {
    "images gone": ("train-images-idx3-ubyte", Path.unlink),
    "labels gone": ("train-labels-idx1-ubyte", Path.unlink),
    "test images gone": ("t10k-images-idx3-ubyte", Path.unlink),
    "images empty": ("train-images-idx3-ubyte", lambda path: path.write_bytes(b"")),
    "images cut off": ("train-images-idx3-ubyte", cut),
    "labels cut off": ("train-labels-idx1-ubyte", cut),
    "images of another kind": ("train-images-idx3-ubyte", of_another_kind),
    "labels in the place of images": (
        "train-images-idx3-ubyte",
        lambda path: shutil.copyfile(path.with_name("train-labels-idx1-ubyte"), path),
    ),
    "fewer labels than images": (
        "train-labels-idx1-ubyte",
        lambda path: shutil.copyfile(path.with_name("t10k-labels-idx1-ubyte"), path),
    ),
    "a folder in the place of a file": ("train-images-idx3-ubyte", unreadable),
    "training images and labels in the place of the test's": (
        "t10k-images-idx3-ubyte",
        lambda path: [shutil.copyfile(path.with_name(f"train-{kind}-ubyte"), path.with_name(f"t10k-{kind}-ubyte"))
                      for kind in ("images-idx3", "labels-idx1")],
    ),
    "a label of no class": ("train-labels-idx1-ubyte", lambda path: relabel(path, 3, 255, once=True)),
    "a test label of no class": ("t10k-labels-idx1-ubyte", lambda path: relabel(path, 3, 10, once=True)),
    "a class that is missing": ("train-labels-idx1-ubyte", lambda path: relabel(path, 9, 8)),
    "images of another size": ("train-images-idx3-ubyte", narrow),
}  # fmt: skip


@pytest.mark.parametrize(("name", "damage"), FILES.values(), ids=FILES)
def test_a_data_file_that_is_damaged(
    refused: Callable[..., str], tmp_path: Path, name: str, damage: Callable[[Path], object]
) -> None:
    need(FASHION.exists(), "needs Fashion-MNIST: scripts/fetch_fashion_mnist.sh")
    raw = tmp_path / "data/FashionMNIST/raw"
    raw.mkdir(parents=True)
    for path in FASHION.glob("*ubyte"):
        shutil.copyfile(path, raw / path.name)
    damage(raw / name)
    line = refused(
        "dataset=fashion_mnist", f"dataset.root={tmp_path}/data", "dataset.download=false"
    )
    assert line.startswith(f"dataset.root={tmp_path}/data: fashion_mnist cannot be read there (")
    assert line.endswith("; scripts/fetch_fashion_mnist.sh fetches it")


def images(root: Path, classes: int = 3, each: int = 8) -> None:
    rng = np.random.default_rng(0)
    for part in ("train", "test"):
        for label in range(classes):
            folder = root / part / f"class{label}"
            folder.mkdir(parents=True)
            for number in range(each):
                pixels = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{number}.png")


def bomb(path: Path) -> None:
    """A PNG of some kB that says it has 10^9 pixels."""
    Image.new("1", (32_000, 32_000)).save(path)


def of_sixteen_bits(path: Path) -> None:
    Image.fromarray(np.arange(64, dtype=np.uint16).reshape(8, 8) * 1000).save(path)


def with_nan(path: Path) -> None:
    pixels = np.full((8, 8), np.nan, dtype=np.float32)
    Image.fromarray(pixels).save(path, format="TIFF")


FOLDERS: dict[str, tuple[str, Callable[[Path], object]]] = {
    "no training images": ("train", shutil.rmtree),
    "no class": ("train", lambda path: [shutil.rmtree(one) for one in path.iterdir()]),
    "a class without an image": (
        "train/class1",
        lambda path: [image.unlink() for image in path.iterdir()],
    ),
    "a class of the test only": ("test/class3", lambda path: shutil.copytree(path.parent / "class0", path)),
    "a file where train/ belongs": ("train", lambda path: (shutil.rmtree(path), path.write_text("x"))),
    "an image cut off": ("train/class1/3.png", cut),
    "an image that is empty": ("train/class1/3.png", lambda path: path.write_bytes(b"")),
    "an image that is a text": ("test/class1/3.png", lambda path: path.write_text("not an image")),
    "an image that leads nowhere": (
        "train/class1/3.png",
        lambda path: (path.unlink(), path.symlink_to("/nowhere.png")),
    ),
    "an image of a billion pixels": ("train/class1/3.png", bomb),
    "an image of 16 bits a channel": ("train/class1/3.png", of_sixteen_bits),
    "an image with NaN": ("train/class1/3.png", with_nan),
    "a named pipe": ("train/class1/3.png", lambda path: (path.unlink(), os.mkfifo(path))),
}  # fmt: skip


@pytest.mark.parametrize("workers", essential([0, 2]))
@pytest.mark.parametrize(("name", "damage"), FOLDERS.values(), ids=FOLDERS)
def test_a_folder_of_images_that_is_damaged(
    refused: Callable[..., str],
    tmp_path: Path,
    name: str,
    damage: Callable[[Path], object],
    workers: int,
) -> None:
    root = tmp_path / "images"
    images(root)
    damage(root / name)
    line = refused(
        "dataset=image_folder", f"dataset.root={root}", "dataset.image_size=8",
        f"dataset.workers={workers}", "trainer.batch_size=4", "dataset.val_size=3",
    )  # fmt: skip
    assert line.startswith("dataset.root")
    assert str(root) in line
    assert not list(tmp_path.glob("run*/history.jsonl")), "nothing was trained"


# --- places with names that need quotes ----------------------------------------------------------

NAMES = [
    "with a space",
    "it's",
    'a "quote"',
    "a=b",
    "größe–学習",
    "a,b",
    "$HOME",
    "100%",
    "a#b",
    "[1]",
]


@pytest.mark.parametrize("name", essential(NAMES))
def test_a_folder_may_have_any_name(tmp_path: Path, main: Main, name: str) -> None:
    folder = tmp_path / name
    images(folder / "images")
    quoted = "'" + str(folder).replace("'", "\\'") + "'"
    done = main(
        "-m", *words("dataset=image_folder", "trainer.batch_size=4"),
        "dataset.image_size=8", "dataset.workers=0", "dataset.val_size=3", "scheduler.t_mult=1,2",
        f"dataset.root={quoted[:-1]}/images'", f"hydra.sweep.dir={quoted[:-1]}/sweep'",
        f"store.dir={quoted[:-1]}/store'",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = [json.loads(path.read_text()) for path in sorted(folder.glob("sweep/*/result.json"))]
    assert [result["status"] for result in found] == ["complete", "complete"]
    assert (folder / "sweep/report.html").exists()
    assert list((folder / "store").glob("*/*.pt"))
