"""What is wrong in a file of the user's own is one line, before anything is trained."""

from __future__ import annotations

import importlib
import itertools
import re
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conftest import essential, make_config
from test_faults import TINY

from harness.config import extensions, registry
from harness.config.errors import ConfigError
from harness.config.schema import Config
from harness.runs import setup
from harness.runs.context import PhaseTimer, RunContext
from harness.runs.run import run
from harness.runs.run_dir import RunInfo
from harness.training import metrics

HEAD = """from typing import Literal
import numpy as np, torch
from torch import nn, optim
from torch.optim.lr_scheduler import LambdaLR, OneCycleLR
from harness.extend import *
"""
NET = "nn.Sequential(nn.Flatten(), nn.Linear(shape.channels * shape.image_size**2, shape.classes))"
CASE = itertools.count()

Load = Callable[[str], Config]


@pytest.fixture
def load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Load]:
    """Load a file of one's own, which may register `Mine`, and return a small configuration with it."""
    for variable in (extensions.VARIABLE, "PYTHONPATH"):
        monkeypatch.setenv(variable, "")
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(extensions, "_LOADED", {})
    monkeypatch.setattr(setup, "_PLANS", {})
    monkeypatch.setattr(setup, "_FITTING", set())

    def loaded(text: str) -> Config:
        path = tmp_path / f"mine{next(CASE)}.py"
        path.write_text(text)
        extensions.load([f"extensions=[{path}]"])
        node = importlib.import_module(path.stem).Mine
        config = make_config(*TINY)
        if node.section == "metric":
            return replace(config, metrics=["mine"])
        return replace(config, **{node.section: node()})

    yield loaded
    for kinds in registry.KINDS.values():
        kinds.pop("mine", None)
    registry.METRICS.pop("mine", None)
    registry.group_files.cache_clear()


def shown(error: Exception) -> str:
    return re.sub(r"mine\d+\.py", "FILE", str(error))


def model(body: str, fields: str = "", before: str = "") -> str:
    return f"{HEAD}{before}\n@register('mine')\nclass Mine(Model):\n    {fields}\n    def build(self, shape):\n        {body}\n"


def module(forward: str) -> str:
    """A class of network with a layer, and its `forward`."""
    own = f"class Net(nn.Module):\n    def __init__(self, shape):\n        super().__init__()\n        self.net = {NET}\n"
    return f"{own}    def forward(self, x):\n        {forward}\n"


def schedule(body: str, more: str = "") -> str:
    return f"{HEAD}\n@register('mine')\nclass Mine(Scheduler):\n    def build(self, optimizer, durations):\n        {body}\n{more}"


CONSTANT = "return LambdaLR(optimizer, lambda step: 1.0)"


def ends(value: str) -> str:
    return schedule(CONSTANT, f"    def cycle_ends(self, durations):\n        return {value}\n")


def optimizer(body: str, before: str = "", lr: str = "0.1") -> str:
    own = f"class Mine(Optimizer):\n    lr: float = number(above=0, default={lr})\n"
    return f"{HEAD}{before}\n@register('mine')\n{own}    def build(self, parameters):\n        {body}\n"


def step(*lines: str) -> str:
    """An optimizer whose step does `lines` with each parameter `p` of a group `g`."""
    loop = "for g in self.param_groups:\n            for p in g['params']:\n"
    body = "".join(f"                {line}\n" for line in lines)
    own = f"class Own(optim.SGD):\n    count = 0\n    @torch.no_grad()\n    def step(self, closure=None):\n        {loop}{body}"
    return optimizer("return Own(parameters, lr=self.lr)", own)


def data(body: str) -> str:
    own = "pixels, labels, classes = np.arange(640, dtype=np.uint8).reshape(40, 4, 4, 1), np.arange(40) % 2, ['a', 'b']"
    return f"{HEAD}\n@register('mine')\nclass Mine(Dataset):\n    def read(self):\n        {own}\n        {body}\n"


def metric(value: str, update: str = "pass", fields: str = "") -> str:
    own = f"class Mine(Metric):\n    better = 'lower'\n    {fields}\n    def update(self, logits, labels):\n        {update}\n"
    return f"{HEAD}\n@register('mine')\n{own}    def compute(self):\n        return {value}\n"


READ = "must be (images, labels), the same of test images or None, and a list of the names of the classes"
BASES = "must be a class of one of harness.extend: Model, Dataset, Optimizer, Scheduler, Metric"
TYPES = "fields are of int, float, bool, str, lists of them, or with | None"
AGAIN = "goes on otherwise from a checkpoint; what step remembers belongs in self.state[parameter]"
FILE = {  # said when it is loaded, with the line
    "a decorator without a name": (f"{HEAD}@register\nclass Mine(Model): pass", '@register: has no name; write @register("mine") (FILE, line 6)'),
    "a plain class": (f"{HEAD}@register('mine')\nclass Mine: pass", f"mine: Mine {BASES} (FILE, line 6)"),
    "a module of torch": (f"{HEAD}@register('mine')\nclass Mine(nn.Module): pass", f"mine: Mine {BASES} (FILE, line 6)"),
    "a function": (f"{HEAD}@register('mine')\ndef mine(shape): pass", f"mine: mine {BASES} (FILE, line 6)"),
    "a misspelt method": (model("pass").replace("def build", "def biuld"), "model=mine: Mine has no method build (FILE, line 7)"),
    "a method with other parameters": (model("pass").replace("(self, shape)", "(self)"), "model=mine: build must take (self, shape) (FILE, line 7)"),
    "a field without a type": (model("pass", "width = number(default=3)"), "TypeError: 'width' is a field but has no type annotation (FILE, line 7)"),
    "a default out of bounds": (model("pass", "width: int = number(at_least=1, default=0)"), "model.width=0: must be a whole number ≥ 1 (FILE, line 7)"),
    "a default that is no choice": (model("pass", "act: str = choice('a', 'b', default='c')"), "model.act=c: choose from a, b (FILE, line 7)"),
    "a default of another type": (model("pass", "width: int = number(at_least=1, default='wide')"), f"model=mine: Value 'wide' of type 'str' could not be converted to Integer; {TYPES} (FILE, line 7)"),
    "a type of torch": (model("pass", "weight: torch.Tensor = None"), f"model=mine: Unexpected type annotation: Tensor; {TYPES} (FILE, line 7)"),
    "a literal type": (model("pass", "act: Literal['a', 'b'] = 'a'"), f"model=mine: Unexpected type annotation: Literal[a, b]; {TYPES} (FILE, line 7)"),
    "a type that is not there": ("from __future__ import annotations\n" + model("pass", "act: Strr = 'a'"), f"model=mine: name 'Strr' is not defined; {TYPES} (FILE, line 8)"),
    "a field called kind": (model("pass", "kind: str = 'a'"), "model=mine: a field cannot be called kind; give it another name (FILE, line 7)"),
    "a field called section": (model("pass", "section: str = 'a'"), "mine: Mine has a field section; give it another name (FILE, line 7)"),
    "a bound that is not there": (model("pass", "width: int = number(min=1, default=3)"), "TypeError: number() got an unexpected keyword argument 'min' (FILE, line 9)"),
    "a metric whose field has no default": (metric("1.0", fields="bins: int = number(at_least=1)"), "metric=mine: bins: has no default, and metrics have no keys; give it one (FILE, line 7)"),
    "a relative import": ("from . import other", "ImportError: attempted relative import with no known parent package (FILE, line 1); write import NAME, or name it as a module of its package, extensions=[PACKAGE.MODULE]"),
    "an import of what is not there": ("from torch import nothing_of_this_name", "(FILE, line 1)"),
    "tabs and spaces": ("if True:\n\tx = 1\n        y = 2", "SyntaxError: inconsistent use of tabs and spaces in indentation (FILE, line 3)"),
    "a program": ("raise SystemExit('usage: …')", 'SystemExit: usage: … (FILE, line 1); begin what the file does as a program with if __name__ == "__main__":'),
}  # fmt: skip


@pytest.mark.parametrize(("text", "line"), FILE.values(), ids=FILE)
def test_a_file_that_cannot_be_loaded(load: Load, text: str, line: str) -> None:
    with pytest.raises(ConfigError) as error:
        load(text)
    assert line in shown(error.value)


RUN = {  # said when the run, or the sweep, is set up
    "other weights each time": (model(f"n = {NET}; nn.init.constant_(n[1].weight, np.random.random()); return n"), "model=mine: build gives other weights each time; draw them from torch's global generator alone"),
    "a seed of its own": (model(f"torch.seed(); return {NET}"), "model=mine: build gives other weights each time"),
    "no parameters": (model("return Net(shape)", before="class Net(nn.Module):\n    def __init__(self, s): super().__init__()\n    def forward(self, x): return x.flatten(1)[:, :4]"), "model=mine: the logits follow from no parameter that can be trained"),
    "frozen": (model(f"return {NET}.requires_grad_(False)"), "model=mine: the logits follow from no parameter that can be trained"),
    "whole numbers": (model("return Net(shape)", before=module("return self.net(x).long()")), "model=mine: gives torch.int64 (2, 4) for 2 images, in evaluation; must give logits of (2, 4)"),
    "a pair": (model("return Net(shape)", before=module("return self.net(x), x")), "model=mine: gives a tuple for 2 images, in evaluation"),
    "a pair in training": (model("return Net(shape)", before=module("return (self.net(x), x) if self.training else self.net(x)")), "model=mine: gives a tuple for 2 images, in training"),
    "a failure in training": (model("return Net(shape)", before=module("assert not self.training, 'no'; return self.net(x)")), "model=mine: forward, in training: AssertionError: no (FILE, line 11)"),
    "lazy modules": (model("return nn.Sequential(nn.Flatten(), nn.LazyLinear(4))"), "model=mine: has lazy modules, without weights; give them their sizes"),
    "on another device": (model(f"return {NET}.to('meta')"), "model=mine: has weights on meta; build them on the CPU, the run moves them"),
    "doubles": (model(f"return {NET}.double()"), "model=mine: forward, in evaluation: RuntimeError: mat1 and mat2 must have the same dtype"),
    "no scheduler": (schedule("pass"), "scheduler=mine: build returns a NoneType, not an LRScheduler of the optimizer that it is given"),
    "of another optimizer": (schedule("return LambdaLR(optim.SGD([nn.Parameter(torch.zeros(1))]), lambda step: 1.0)"), "scheduler=mine: build returns a LambdaLR of another optimizer"),
    "random LRs": (schedule("return LambdaLR(optimizer, lambda step: np.random.random())"), "it must follow from the keys and the step alone"),
    "no LR above 0": (schedule("return LambdaLR(optimizer, lambda step: 0.0)"), "scheduler=mine: the LR of all updates is 0; one must be above 0"),
    "an infinite LR": (schedule("return LambdaLR(optimizer, lambda step: 1e400)"), "scheduler=mine: the LR of update 1 is inf; must be a number ≥ 0"),
    "too few steps": (schedule("return OneCycleLR(optimizer, 0.1, total_steps=5, cycle_momentum=False)"), "scheduler=mine: step: ValueError: Tried to step 6 times. The specified number of total steps is 5"),
    "half an update": (ends("[3.5]"), "scheduler=mine: cycle_ends gives 3.5 after 0; must be rising numbers of updates"),
    "falling ends": (ends("[9, 3]"), "scheduler=mine: cycle_ends gives 3 after 9; must be rising numbers of updates"),
    "an end of nothing": (ends("iter(int, 1)"), "scheduler=mine: cycle_ends gives 0 after 0; must be rising numbers of updates"),
    "one end": (ends("5"), "scheduler=mine: cycle_ends: TypeError: 'int' object is not iterable"),
    "no optimizer": (optimizer("pass"), "optimizer=mine: build returns a NoneType, not a torch.optim.Optimizer"),
    "another LR": (optimizer("return optim.SGD(parameters, lr=0.5)"), "optimizer=mine: build gives the LR 0.5, not optimizer.lr=0.1; pass lr=self.lr on"),
    "no weight decay": (optimizer("return optim.SGD(parameters, lr=self.lr)").replace("default=0.1)", "default=0.1)\n    weight_decay: float = 0.1"), "optimizer=mine: build leaves optimizer.weight_decay=0.1 out; pass weight_decay=self.weight_decay on"),
    "a closure": (optimizer("return optim.LBFGS(parameters, lr=self.lr)"), "optimizer=mine: step: TypeError: LBFGS.step() missing 1 required positional argument: 'closure'"),
    "another shape": (step("p.add_(torch.zeros(7, 7))"), "optimizer=mine: step: RuntimeError: The size of tensor a"),
    "changed shapes": (step("p.data = torch.zeros(3)"), "optimizer=mine: step changes the shape of parameters"),
    "gradients of the step": (step("p.add_(p.grad)").replace("@torch.no_grad()\n", "\n"), "a leaf Variable that requires grad is being used in an in-place operation. (FILE, line"),
    "a count of its own": (step("self.count += 1", "p.add_(p.grad, alpha=-g['lr'] / self.count)"), f"optimizer=mine: {AGAIN}"),
    "one class": (data("return (pixels, 0 * labels), None, ['a']"), "dataset=mine: read gives 1 class; must be two or more"),
    "a class without images": (data("return (pixels, 0 * labels), None, classes"), "class b has no image, and each part needs one; add some"),
    "a pair alone": (data("return pixels, labels"), f"dataset=mine: read gives (ndarray, ndarray); {READ}"),
    "nothing": (data("pass"), f"dataset=mine: read gives NoneType; {READ}"),
    "test images without labels": (data("return (pixels, labels), pixels, classes"), f"dataset=mine: read gives ((ndarray, ndarray), ndarray, list); {READ}"),
    "a number of classes": (data("return (pixels, labels), None, 2"), f"dataset=mine: read gives ((ndarray, ndarray), NoneType, int); {READ}"),
    "test images of another size": (data("return (pixels, labels), (pixels[:, :3, :3], labels), classes"), "dataset=mine: read gives test images of (3, 3, 1); must be as those to train on, (4, 4, 1)"),
    "no test images": (data("return (pixels, labels), (pixels[:0], labels[:0]), classes"), "dataset=mine: read gives no images; of test images it may give None"),
    "tensors": (data("return (torch.from_numpy(pixels), labels), None, classes"), "dataset=mine: read gives images as Tensor; must be uint8 arrays, or lists of paths"),
    "channels first": (data("return (pixels.transpose(0, 3, 1, 2), labels), None, classes"), "must be uint8 (images, size, size, channels)"),
    "labels in a column": (data("return (pixels, labels[:, None]), None, classes"), "dataset=mine: read gives labels of int64 (40, 1); must be whole numbers (40,)"),
    "names as labels": (data("return (pixels, np.array(['a', 'b'] * 20)), None, classes"), "dataset=mine: read gives labels of <U1 (40,); must be whole numbers (40,)"),
    "one colour": (data("return (0 * pixels, labels), None, classes"), "dataset: channel 0 has the same value in all images"),
    "a NaN": (metric("float('nan')"), "metrics=[mine]: compute gives nan; must be a finite number"),
    "a text": (metric("'good'"), "metrics=[mine]: compute: ValueError: could not convert string to float: 'good'"),
    "no number": (metric("None"), "metrics=[mine]: compute: TypeError: float() argument must be a string or a real number, not 'NoneType'"),
    "several numbers": (metric("torch.zeros(3)"), "metrics=[mine]: compute: ValueError: only one element tensors can be converted"),
    "an update that fails": (metric("1.0", "labels.nothing()"), "metrics=[mine]: update: AttributeError: 'Tensor' object has no attribute 'nothing' (FILE, line 12)"),
}  # fmt: skip


@pytest.mark.parametrize(("text", "line"), RUN.values(), ids=RUN)
@pytest.mark.parametrize("planned", essential([True, False]), ids=str)
def test_code_that_cannot_be_trained_with(load: Load, text: str, line: str, planned: bool) -> None:
    """Before a sweep, and before a run."""
    config = load(text)
    with pytest.raises(ConfigError) as error:
        setup.lr_plan(config) if planned else setup.prepare(config, PhaseTimer())
    assert line in shown(error.value)
    assert "\n" not in shown(error.value)


RIGHT = {
    "a list": (model(f"return {NET}", "widths: list[int] = number(at_least=1, default=[1, 2])"), "model"),
    "a list without effect": (model(f"return {NET}", "sizes: list[int] = without_effect(number(default=[1]))"), "model"),
    "two fields": (data("return (pixels, labels), (pixels, labels), classes").replace("    def read", "    sizes: list[int] = number(default=[1])\n    def read"), "dataset"),
    "groups by hand": (optimizer("return optim.SGD([{'params': parameters[:1], 'lr': 0.5}, {'params': parameters[1:]}], lr=self.lr)"), "optimizer"),
    "Adam": (optimizer("return optim.Adam(parameters, lr=self.lr)"), "optimizer"),
    "RAdam": (optimizer("return optim.RAdam(parameters, lr=self.lr)"), "optimizer"),
    "a tensor": (metric("torch.tensor(1.5)"), "metrics"),
}  # fmt: skip


@pytest.mark.parametrize("text", [text for text, _ in RIGHT.values()], ids=RIGHT)
def test_code_that_can_be_trained_with(load: Load, text: str) -> None:
    config = load(text)
    own = setup.prepare(config, PhaseTimer())
    state, _ = setup.build(config, own.splits, own.device, own.precision)
    assert state.updates == 0
    assert len(setup.lr_plan(config).lr) == own.identity.plan.updates


def test_two_classes_of_one_name_have_plans_of_their_own(load: Load) -> None:
    falling = schedule("return LambdaLR(optimizer, lambda step: 0.9**step)")
    second = load(falling.replace("'mine'", "'mine_too'"))
    first = load(schedule(CONSTANT))
    assert len({*setup.lr_plan(first).lr.tolist()}) == 1
    assert len({*setup.lr_plan(second).lr.tolist()}) > 1
    registry.KINDS["scheduler"].pop("mine_too")


def test_what_a_metric_draws_and_writes_changes_nothing(load: Load) -> None:
    load(metric("float(torch.rand(())) + float(self.sum)", "self.sum = logits.zero_().sum()"))
    logits, labels = torch.randn(20, 4), torch.arange(20) % 4
    before = logits.clone(), torch.get_rng_state()
    metrics.check(["mine"], 4)
    assert torch.equal(torch.get_rng_state(), before[1])
    metrics.compute("mine", logits, labels)
    assert torch.equal(logits, before[0])


def test_evaluations_draw_nothing_that_training_does(load: Load) -> None:
    """A network that draws in evaluation, as Monte Carlo dropout does: the cadence is not in the fingerprint."""
    draws = "return nn.functional.dropout(self.net(x), 0.5, True)"
    config = load(model("return Net(shape)", before=module(draws)))
    ends = []
    for evaluations in (1, 3):
        trainer = replace(config.trainer, evals_per_epoch=evaluations)
        folder = Path(tempfile.mkdtemp())
        ctx = RunContext(replace(config, trainer=trainer, reuse=False), RunInfo(folder, "run"))
        ends.append(run(ctx).to_json()["weights_sha256"])
    assert ends[0] == ends[1]


@pytest.mark.parametrize("decays", [True, False])
def test_an_optimizer_that_takes_no_weight_decay_of_its_groups_is_refused(
    load: Load, decays: bool
) -> None:
    lines = ["p.mul_(1 - g['lr'] * g['weight_decay'])"] if decays else []
    text = step(*lines, "p.add_(p.grad, alpha=-g['lr'])")
    config = load(text.replace("lr=self.lr)", "lr=self.lr, weight_decay=self.weight_decay)"))
    own = replace(config.optimizer, weight_decay=0.1, no_decay="norm_bias")
    config = replace(config, optimizer=own)
    if decays:
        setup.prepare(config, PhaseTimer())
        return
    with pytest.raises(ConfigError, match="takes no weight decay of its groups"):
        setup.prepare(config, PhaseTimer())


def test_a_metric_that_is_no_number_of_an_average_ends_no_run(load: Load, tmp_path: Path) -> None:
    """The first call is the check before training; then the run and its average take turns."""
    value = "1.0 if Mine.calls % 2 == 0 or Mine.calls == 1 else float('nan')"
    load(metric(value, "Mine.calls += 1").replace("    better", "    calls = 0\n    better"))
    config = replace(make_config(*TINY, "averages.ema=[0.9]"), metrics=["mine"], reuse=False)
    result = run(RunContext(config, RunInfo(tmp_path, "run"))).to_json()
    assert result["status"] == "complete"
    assert result["final"]["val/mine"] == 1.0
    assert "val/mine@ema:0.9" not in result["final"]
