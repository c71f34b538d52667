"""Evaluations of a run's network, and which images it classifies correctly at the end."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor, nn

from harness.config.errors import ConfigError
from harness.correct import Bits, accuracy, metric
from harness.runs.result import Evaluation
from harness.runs.setup import Setup
from harness.training import averages
from harness.training.averages import RECALIBRATION_IMAGES
from harness.training.batches import EvalBatches
from harness.training.distributed import World
from harness.training.loop import Row, TrainState, TrainStep
from harness.training.metrics import compute, refuse_infinite

_NONE = np.empty(0, np.bool_)


@dataclass
class Evaluator:
    """Evaluates `state` on the splits of a run; keeps of each split which images were correct last."""

    world: World
    setup: Setup
    step: TrainStep
    state: TrainState
    _correct: dict[str, list[Tensor]] = field(default_factory=dict)  # by batch, on the device

    def val(self) -> Row:
        """Return the metrics of the validation set, of the averages too. Raises as `TrainState.checked`."""
        row = self.state.checked(self._evaluate("val", self.setup.val))
        return row | self._of_averages("val", self.setup.val)

    def test(self) -> Evaluation:
        """Return the metrics of the test set; or none, and why: the run stands without them.

        Raises as `TrainState.checked`.
        """
        if self.setup.test is None:
            return Evaluation({}, "there is no test set")
        test = self._attempt("test", self.setup.test)
        if test.missing:
            return test
        values = self.state.checked(test.values)
        return Evaluation(values | self._of_averages("test", self.setup.test))

    def correct(self, stored: Mapping[str, Bits], recorded: Row) -> dict[str, Bits]:
        """Return which images of each split the end of the run classifies correctly, in the split's order.

        They are those of the evaluation that gave `recorded`, the metrics at the end: of this process's
        own, else `stored` ones, else of one more. A split is left out where they do not give the recorded
        accuracy, as in other numerics, or where it cannot be read. All processes return all images.
        """
        found = {}
        splits = {"val": self.setup.val, "test": self.setup.test}
        for split in [f"{name}{average}" for average in ("", *self._averages()) for name in splits]:
            batches = splits[split.partition("@")[0]]
            if batches is None or metric(split) not in recorded:
                continue
            bits = stored.get(split, _NONE)
            if split not in self._correct and len(bits) != batches.images:
                self._attempt(split, batches)
            if split in self._correct:
                bits = self._gathered(split, batches)
            fits = len(bits) == batches.images
            if fits and accuracy(bits) == recorded[metric(split)]:
                found[split] = bits
        return found

    def _averages(self) -> list[str]:
        """Return what is behind the names of the averages' splits and metrics: `@ema:0.99`."""
        return [f"@{name}" for name in self.state.averages.names] if self.state.averages else []

    def _of_averages(self, split: str, batches: EvalBatches) -> Row:
        """Return the metrics of all averages, without numbers that are not finite: the run goes on."""
        row: Row = {}
        for average in self._averages():
            row |= self._evaluate(f"{split}{average}", batches)
        return {name: value for name, value in row.items() if math.isfinite(value)}

    def _evaluate(self, split: str, batches: EvalBatches) -> Row:
        """Return the metrics of the run on a split, or, with `@NAME` behind it, of one of its averages."""
        _, at, average = split.partition("@")
        if not average:
            return self._measure(self.step, self.state.network, split, batches)
        network = self._recalibrated(average)
        row = self._measure(replace(self.step, forward=network), network, split, batches)
        return {f"{name}{at}{average}": value for name, value in row.items()}

    def _recalibrated(self, average: str) -> nn.Module:
        """Return the network of an average, its batch norms with statistics of training images."""
        assert self.state.averages
        network = self.state.averages.network(average)
        if averages.batch_norms(network):
            with self.step.precision.autocast():
                averages.recalibrate(network, self.setup.recalibration.last(RECALIBRATION_IMAGES))
        return network

    def _measure(
        self, step: TrainStep, network: nn.Module, split: str, batches: EvalBatches
    ) -> Row:
        correct: list[Tensor] = []
        outputs: list[tuple[Tensor, Tensor]] | None = [] if self.setup.metrics else None
        name, device = split.partition("@")[0], self.setup.device
        devices = [] if device.type == "cpu" else [device]
        with torch.random.fork_rng(
            devices, device_type=device.type
        ):  # code of the user's may draw, and changes no training
            row = step.evaluate(network, batches, name, correct, outputs)
            self._correct[split] = correct
            if outputs is None or math.isnan(row[f"{name}/acc"]):
                return row
            logits = torch.zeros(batches.images, self.setup.splits.classes, device=device)
            labels = torch.zeros(batches.images, dtype=torch.int64, device=device)
            self._gather([one for one, _ in outputs], batches, logits)
            self._gather([one for _, one in outputs], batches, labels)
            own = {metric: compute(metric, logits, labels) for metric in self.setup.metrics}
        if "@" not in split:  # an average without a number has none, and the run goes on
            for metric, value in own.items():
                refuse_infinite(metric, value)
        return row | {f"{name}/{metric}": value for metric, value in own.items()}

    def _attempt(self, split: str, batches: EvalBatches) -> Evaluation:
        """Return the metrics of a split; or none, and why, if a process cannot read it."""
        try:
            row = self._evaluate(split, batches)
        except (ConfigError, OSError, RuntimeError) as error:
            if isinstance(error, RuntimeError) and not str(error).startswith("DataLoader worker"):
                raise
            nothing = torch.full(
                (3,), math.nan, dtype=self.setup.precision.sums, device=self.setup.device
            )
            self.world.sum(nothing)  # for the other processes, which sum their parts
            return Evaluation({}, f"the {split} set cannot be read: {error}")
        if math.isnan(row[metric(split)]):
            del self._correct[split]
            return Evaluation({}, f"the {split} set cannot be read by another process")
        return Evaluation(row)

    def _gathered(self, split: str, batches: EvalBatches) -> Bits:
        whole = torch.zeros(batches.images, dtype=torch.uint8, device=self.setup.device)
        self._gather(self._correct[split], batches, whole)
        bits: Bits = whole.bool().cpu().numpy()
        return bits

    def _gather(self, parts: list[Tensor], batches: EvalBatches, whole: Tensor) -> None:
        """Put all processes' parts into `whole`, zeros of the split's images, in the order of their indices."""
        if parts:  # none where there are more processes than images
            whole[batches.own.to(whole.device)] = torch.cat(parts).to(whole.dtype)
        self.world.sum(whole)
