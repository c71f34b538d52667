"""What a run promises on a GPU: it waits for nothing, resumes bit for bit, keeps to its plan, says what it lacks."""

from __future__ import annotations

import io
import subprocess
import sys
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor

from benchmarks.gpu_speed import Row, Rows, images, loop, setting, waiting
from benchmarks.training import Loop, settings
from benchmarks.usual import ROOT
from harness.config.one_line_errors import explain
from harness.runs.context import RunContext
from harness.runs.run import run
from harness.runs.run_dir import RunInfo
from harness.training.loop import updates

_NET = "ResNet-8, 28 px"
_STEPS = {
    "bf16": ("trainer.precision=bf16",),
    "fp16": ("trainer.precision=fp16",),
    "fp32": ("trainer.precision=fp32",),
    "fp16, AdamW": ("trainer.precision=fp16", "optimizer=adamw"),
    "accumulate=2, clip=1, no_decay": (
        "optimizer.accumulate=2", "optimizer.clip=1", "optimizer.no_decay=norm_bias",
    ),
    "fp16, clip=1": ("trainer.precision=fp16", "optimizer.clip=1"),
    "averages.ema=[0.9,0.999]": ("averages.ema=[0.9,0.999]",),
}  # fmt: skip


def no_waits(device: torch.device) -> Rows:
    """Batches and updates of the harness's own loop, between the rows of the history."""
    if device.type == "cpu":
        yield Row("an update waits for the GPU", "not on a CPU")
        return
    for name, overrides in _STEPS.items():
        own = loop(device, _NET, *overrides)
        steps = _updates(own)
        for _ in range(3):
            next(steps)
        place = waiting(lambda steps=steps: next(steps))  # type: ignore[misc]
        yield Row(
            f"an update and its batch wait for the GPU, {name}",
            place or "0 of 20",
            "0",
            not place,
        )


def _updates(own: Loop) -> Iterator[float]:
    yield from updates(own.state, own.step, own.plan, own.batches)


def killed_runs(device: torch.device) -> Rows:
    """`scripts/verify_resume.py`, two recipes at once: SIGKILL and four signals, at random instants."""
    kills = 3 if device.type == "cuda" else 1
    recipes = {
        name: [
            sys.executable, "scripts/verify_resume.py", "--kills", str(kills), *setting(device, _NET),
            "trainer.deterministic=true", "trainer.epochs=4", "scheduler.t_max=4", *overrides,
        ]
        for name, overrides in _recipes(device).items()
    }  # fmt: skip
    started = {
        name: subprocess.Popen(
            words, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        for name, words in recipes.items()
    }
    for name, process in started.items():
        said = process.communicate()[0].strip().splitlines()
        holds = process.returncode == 0 and said[-1:] == ["equal, bit for bit"]
        yield Row(f"killed and resumed, {name}", "; ".join(said[-2:]), "equal, bit for bit", holds)
        if not holds:
            print(*said, sep="\n", file=sys.stderr, flush=True)


def _recipes(device: torch.device) -> dict[str, tuple[str, ...]]:
    if device.type == "cpu":
        return {"fp32": ("trainer.epochs=8", "scheduler.t_max=8")}
    return {
        "bf16, EMA": ("trainer.precision=bf16", "averages.ema=[0.99]"),
        "fp16": ("trainer.precision=fp16",),
    }


def resumed_states(device: torch.device) -> Rows:
    """A state that goes through a file in the middle of an epoch, in every precision and mode."""
    cases = [
        ("bf16", "none"),
        ("fp16", "none"),
        ("fp32", "none"),
        ("bf16", "reduce-overhead"),
        ("fp32", "default"),
    ]
    for precision, compile_ in cases if device.type == "cuda" else cases[2:3]:
        own = (_NET, f"trainer.precision={precision}", f"trainer.compile={compile_}")
        for strict in ("true", "false") if compile_ == "none" else ("true",):
            deterministic = (*own, f"trainer.deterministic={strict}")
            ends = [_end(device, deterministic, stop) for stop in (None, None, 0.7)]
            again, resumed = (_difference(ends[0], end) for end in ends[1:])
            yield Row(
                f"{precision}, compile={compile_}, deterministic={strict}: repeated; resumed",
                f"{again or 'equal'}; {resumed or 'equal'}",
                "equal; equal" if strict == "true" else "",
                strict == "false" or again == resumed == "",
            )


def _end(device: torch.device, overrides: tuple[str, ...], stop: float | None) -> dict[str, Tensor]:
    """Return the weights after an epoch and a half; a fresh state goes on after the share `stop` of an epoch."""
    own = loop(device, *overrides)
    most = own.plan.updates_per_epoch * 3 // 2
    if stop is not None:
        for _ in islice(_updates(own), int(stop * own.plan.updates_per_epoch)):
            pass
        file = io.BytesIO()
        torch.save(own.state.snapshot(), file)
        file.seek(0)
        own = loop(device, *overrides)
        own.state.restore(torch.load(file, map_location="cpu", weights_only=True))
    for _ in islice(_updates(own), most - own.state.updates):
        pass
    return {name: value.cpu() for name, value in own.state.network.state_dict().items()}


def _difference(first: dict[str, Tensor], second: dict[str, Tensor]) -> str:
    """Return the largest difference; nothing if all are equal, bit for bit."""
    pairs = [(value, second[name]) for name, value in first.items()]
    if all(torch.equal(a, b) for a, b in pairs):
        return ""
    return f"differ by up to {max(float((a - b).abs().max()) for a, b in pairs):.1g}"


def skipped_updates(device: torch.device) -> Rows:
    """Updates that GradScaler skips, as it begins and under a scale far too large; the LR is the plan's."""
    precision = "fp16" if device.type == "cuda" else "fp32"
    for optimizer in ("sgd", "adamw"):
        for scale in (2.0**16, 2.0**100):
            own = loop(device, _NET, f"trainer.precision={precision}", f"optimizer={optimizer}")
            own.state.scaler = torch.amp.GradScaler(device.type, init_scale=scale)
            skipped, touched = _count_skipped(own, 20 if device.type == "cpu" else 200)
            done, moments = own.state.updates, _all(own.state.optimizer.state_dict()["state"])
            finite = all(
                bool(t.isfinite().all()) for t in [*own.state.network.parameters(), *moments]
            )
            yield Row(
                f"{optimizer}, {precision}, GradScaler from 2^{scale.hex().partition('p+')[2]}",
                f"{skipped} of {done} updates skipped, {touched} of these changed a weight; every LR is the "
                f"plan's; {'all finite' if finite else 'NOT FINITE'} at the end",
                "0 changed, all finite",
                touched == 0 and finite,
            )


def _count_skipped(own: Loop, most: int) -> tuple[int, int]:
    skipped = touched = 0
    parameters = list(own.state.network.parameters())
    scale, before = own.state.scaler.get_scale(), [p.detach().clone() for p in parameters]
    for _ in islice(_updates(own), most):  # which raises where an LR is not the plan's
        after = own.state.scaler.get_scale()
        if after < scale:
            skipped += 1
            touched += not all(map(torch.equal, before, parameters))
        scale, before = after, [p.detach().clone() for p in parameters]
    return skipped, touched


def _all(state: dict[int, dict[str, Any]]) -> list[Tensor]:
    return [value for one in state.values() for value in one.values() if isinstance(value, Tensor)]


def out_of_memory(device: torch.device) -> Rows:
    """A batch that does not fit into the share of the memory that is allowed; then one that does, as in a sweep."""
    if device.type == "cpu":
        yield Row("a batch larger than the GPU's memory", "not on a CPU")
        return
    whole = torch.cuda.get_device_properties(device).total_memory
    torch.cuda.set_per_process_memory_fraction(2**32 / whole, device)  # 4 GiB
    base = (*setting(device, "ResNet-18, 64 px"), "reuse=false")
    said = _error(settings(1, "trainer.batch_size=2048", base=base))
    yield Row(
        "a batch larger than the GPU's memory",
        said,
        "one line",
        said.startswith("out of memory: lower "),
    )
    after = _error(settings(1, images(4), base=base))
    yield Row("… and the next run in the same process", after or "complete", "complete", not after)


def _error(config: Any) -> str:
    """Return the line that a run's error becomes; nothing if it is complete."""
    with TemporaryDirectory() as folder:
        try:
            run(RunContext(config, RunInfo(Path(folder, "run"), "run")))
        except Exception as error:
            return explain(error) or repr(error)
    return ""


def gpu_tests(device: torch.device) -> Rows:
    """The tests marked `gpu`, from the files that have any: others may need what is not installed here."""
    if device.type == "cpu":
        yield Row("`pytest -m gpu`", "not on a CPU")
        return
    files = [
        p for p in sorted(Path(ROOT, "tests").rglob("test_*.py")) if "mark.gpu" in p.read_text()
    ]
    words = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-m",
        "gpu",
        "-p",
        "no:cacheprovider",
        *map(str, files),
    ]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        print(done.stdout, done.stderr, file=sys.stderr, flush=True)
    last = [*done.stdout.strip().splitlines(), ""][-2 if done.stdout.strip() else -1]
    yield Row("`pytest -m gpu`", last.strip("= "), "all pass", not done.returncode)
