"""What a run is made of: typed sections, checked where they enter.

Defaults live in `conf/`, where users read them; the classes here give types, ranges and meaning.
"""

from __future__ import annotations

import dataclasses
import os
import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from omegaconf import MISSING

from harness.config.errors import ConfigError
from harness.config.fields import Section, added, choice, duration, newer, number, show

if TYPE_CHECKING:
    from torch import Tensor, nn, optim
    from torch.optim.lr_scheduler import LRScheduler

    Parameters = list[nn.Parameter] | list[dict[str, Any]]

    from harness.training.datasets import Arrays, Source
    from harness.training.schedules import Durations

MOST_EPOCHS = 1e6  # of a budget
FIRST_TUNING_SEED = 1000  # claims begin at 0
MOST_PAIRS = 10_000  # of a claim that goes on until decided
MOST_TITLE_WORDS = 15
SETS = ("val", "test")  # of images, on which metrics are evaluated


@dataclass
class Model(Section, ABC):
    section: ClassVar[str] = "model"

    @abstractmethod
    def build(self, shape: DatasetShape) -> nn.Module:
        """Return the network, freshly initialised from torch's global generator, in float32 on the CPU.

        It takes float images (batch, channels, image_size, image_size) and gives logits
        (batch, classes). Raises `ConfigError` if the architecture does not exist or does not fit.
        """


@dataclass(frozen=True)
class DatasetShape:
    """The shape of a data set: `train` images of (channels, image_size, image_size)."""

    train: int
    channels: int
    image_size: int
    classes: int


@dataclass(unsafe_hash=True)
class Dataset(Section, ABC):
    """Images with labels, split once by `split_seed`.

    Sizes below 1 are shares of the images they are cut from, others are counts.
    """

    section: ClassVar[str] = "dataset"
    in_memory: ClassVar[bool] = True  # its splits may be kept from one run of a process to the next

    val_size: float = number(above=0, default=0.2)
    train_size: float | None = number(above=0, default=None)  # null: all that validation leaves
    split_seed: int = number(at_least=0, below=2**63, default=0)
    crop: int = number(
        at_least=0, at_most=64, default=0
    )  # pixels of zero padding that a random crop moves in
    flip: bool = False  # mirror left-right with probability 1/2
    resized_crop: float | None = newer(
        None, number(above=0, below=1)
    )  # the least share of an image
    rand_augment: int | None = newer(
        None, number(at_least=0, at_most=30)
    )  # RandAugment's magnitude
    erase: float | None = newer(
        None, number(above=0, at_most=1)
    )  # the probability of an erased box

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.resized_crop is not None and self.crop > 0:
            raise ConfigError(
                f"dataset.resized_crop={show(self.resized_crop)}: takes the place of dataset.crop; "
                "set dataset.crop=0"
            )

    def shape(self) -> DatasetShape | None:
        """Return the shape before anything is split off, without reading an image. Raises `ConfigError`.

        None: it is that of what `read` returns.
        """
        return None

    @abstractmethod
    def read(self) -> tuple[Source | Arrays, Source | Arrays | None, Sequence[str]]:
        """Return the training images, the test images if the data set has its own, and the classes.

        Of a data set of one's own, images are arrays: uint8 pixels (images, height, width, channels), as high as
        wide, and labels (images,), which count classes from 0. Raises `ConfigError` if they cannot be read.
        """

    def test_split(self) -> float | None:
        """Return how many of the training images become the test set; None if it has its own."""
        return None

    def missing_test(self) -> str | None:
        """Return why there is no test set, and the fix; None if there is one."""
        return None

    def check(self) -> None:
        """Raise `ConfigError` for images that cannot be used; may take long the first time."""

    def unchecked(self) -> int:
        """Return how many images `shape` has not read, and that were not checked before."""
        return 0


@dataclass
class ParameterGroup(Section):
    """The parameters whose whole name fits the pattern `params` (`*` and `?` as in file names), and their factors."""

    section: ClassVar[str] = "optimizer.groups"

    params: str = MISSING
    lr_factor: float = newer(1.0, number(at_least=0, below=1e6))
    weight_decay_factor: float = newer(1.0, number(at_least=0, below=1e6))


@dataclass
class Optimizer(Section, ABC):
    section: ClassVar[str] = "optimizer"
    moments: ClassVar[int] = 2  # numbers of state a parameter, for the size of checkpoints

    lr: float = number(above=0, below=1e6)  # the peak, from which schedules come down
    weight_decay: float = number(at_least=0, below=1e6, default=0.0)
    no_decay: str = newer("none", choice("none", "norm_bias"))  # what has no weight decay
    groups: list[ParameterGroup] | None = newer(None)
    accumulate: int = newer(1, number(at_least=1))  # batches an update
    clip: float | None = newer(None, number(above=0))  # largest norm of all gradients together

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.groups is not None:
            recorded: list[Any] = self.groups
            self.groups = [
                ParameterGroup(**group) if isinstance(group, dict) else group for group in recorded
            ]
            if not self.groups:
                raise ConfigError(
                    "optimizer.groups=[]: must have a group, as in [{params: head.*, lr_factor: 10}], "
                    "or be null"
                )

    @abstractmethod
    def build(self, parameters: Parameters) -> optim.Optimizer:
        """Return torch's optimizer.

        `parameters` are the network's, or groups of them as torch's optimizers take them, each with a
        `weight_decay` and an `lr_factor`, which the schedule multiplies its LR by.
        """

    def compiled(self, parameters: Parameters, mode: str) -> optim.Optimizer:
        """Return it with a step that is compiled in a mode of torch.compile; as it is, where there is none."""
        return self.build(parameters)


@dataclass
class Scheduler(Section, ABC):
    """A learning-rate schedule. Durations count epochs, or updates with `unit: batch`.

    `interval: batch` moves the LR at every update, `epoch` only between epochs.
    """

    section: ClassVar[str] = "scheduler"

    warmup: float = duration(
        at_least=0, default=0.0
    )  # the LR rises linearly to its peak; the schedule follows
    interval: str = choice("batch", "epoch", default="batch")
    unit: str = choice("epoch", "batch", default="epoch")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.unit == "batch" and self.interval == "epoch":
            raise ConfigError(
                "scheduler.unit=batch: periods in batches need scheduler.interval=batch"
            )

    @abstractmethod
    def build(self, optimizer: optim.Optimizer, durations: Durations) -> LRScheduler:
        """Return torch's scheduler of the updates after warm-up, attached to `optimizer`."""

    def check(self, durations: Durations) -> None:
        """Raise `ConfigError` if the schedule does not fit into the budget."""

    def cycle_ends(self, durations: Durations) -> Iterable[int] | None:
        """Return the numbers of updates after which the LR has come down to its minimum, rising.

        There may be endlessly many, or, for a schedule without cycles, none. None: they are to be
        derived from the LRs (`derive_cycle_ends` in `harness/training/schedules.py`).
        """
        return None


@dataclass
class Metric(Section, ABC):
    """A number that evaluations compute of logits and labels, beside acc and loss.

    One object sees one evaluation: `update` gets all images of a split, in their order, then `compute` is asked.
    """

    section: ClassVar[str] = "metric"
    better: ClassVar[str]  # higher or lower
    unit: ClassVar[str] = ""  # of the number, as %

    @abstractmethod
    def update(self, logits: Tensor, labels: Tensor) -> None:
        """Take float32 logits (images, classes) and int64 labels (images,), on the run's device."""

    @abstractmethod
    def compute(self) -> float:
        """Return the finite number that the history records."""


@dataclass
class Trainer(Section):
    section: ClassVar[str] = "trainer"

    epochs: float = number(above=0, at_most=MOST_EPOCHS)
    batch_size: int = number(at_least=1)
    label_smoothing: float = number(at_least=0, below=1)
    precision: str = choice("auto", "fp32", "bf16", "fp16")
    device: str = MISSING  # auto, cpu, mps, cuda, xpu, cuda:N or xpu:N
    deterministic: bool = MISSING  # on CUDA: only deterministic kernels, bit-equal and slower
    compile: str = choice("none", "default", "reduce-overhead")
    channels_last: bool = MISSING
    evals_per_epoch: int = number(at_least=1)
    log_every: int = number(at_least=1)  # updates between two training rows of the history
    checkpoint_every: float = number(at_least=0)  # seconds

    def __post_init__(self) -> None:
        super().__post_init__()
        if not re.fullmatch(r"auto|cpu|mps|(cuda|xpu)(:(0|[1-9][0-9]?))?", self.device):
            raise ConfigError(
                f"trainer.device={self.device}: choose from auto, cpu, cuda, cuda:N (as in cuda:0), mps, xpu, xpu:N"
            )


@dataclass
class Store(Section):
    """Where checkpoints are stored, and which are kept once a run is over."""

    section: ClassVar[str] = "store"

    dir: str = MISSING
    keep: str = choice("cycles", "last", "none")
    wait: bool = MISSING  # for a run under way that will store a longer beginning of this one

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.dir:
            raise ConfigError("store.dir: is empty; name a folder, or unset HARNESS_STORE")
        self.dir = os.path.abspath(self.dir)  # it is recorded, and read from other folders


@dataclass
class Tracking(Section):
    section: ClassVar[str] = "tracking"


@dataclass
class NoTracking(Tracking):
    """The run folder only."""


@dataclass
class TensorBoard(Tracking):
    """Event files of the history, for `tensorboard --logdir`."""


@dataclass
class Wandb(Tracking):
    """A Weights & Biases mirror of the history."""

    mode: str = choice("auto", "online", "offline", "disabled")
    project: str = MISSING
    entity: str | None = MISSING
    tags: list[str] = MISSING

    def __post_init__(self) -> None:
        super().__post_init__()
        for key in ("project", "entity"):
            name = getattr(self, key)
            if name is not None and not re.fullmatch(r"[^/\\#?%:]{1,128}", name):
                raise ConfigError(
                    f"tracking.{key}={name}: must have 1 to 128 characters, and none of / \\ # ? % :"
                )
        for tag in self.tags:
            if not 1 <= len(tag) <= 64:
                raise ConfigError(f"tracking.tags: {tag!r} must have 1 to 64 characters")


@dataclass
class ClaimSettings(Section):
    """What a sweep is judged by; fixed in its `plan.json` before the first update."""

    section: ClassVar[str] = "claim"

    factor: str | None = (
        MISSING  # the swept key that is judged; null: the scheduler's, or the only one
    )
    baseline: str | None = MISSING  # null: the first level of the sweep
    treatments: list[str] | None = MISSING  # null: all other levels
    metric: str = MISSING  # val/NAME or test/NAME, after the last update
    margin: float = number(at_least=0, below=1e6)  # the smallest difference that matters
    level: float = number(above=0, below=0.5)  # of the test
    rivals: list[str] | None = newer(None)  # treatments that may explain another one's gain
    tuned_over: str | None = newer(
        None
    )  # a swept key: the baseline is beaten at each of its values
    until: str | None = newer(None)  # decided: seeds are added in looks, at most `most` of them
    most: int | None = newer(None, number(at_least=2, at_most=MOST_PAIRS))  # pairs; null: 30
    looks: list[int] | None = newer(None)  # numbers of pairs at which the claim is judged
    decide: str = newer(
        "zero", choice("zero", "margin")
    )  # or margin: what a gain must be above to end the sweep
    tune: Any = newer(
        None
    )  # a key, or a list of two, whose value each arm chooses before the claim
    grid: Any = newer(None)  # the values to choose from; with two keys a list of each
    tuning_seeds: int = newer(5, number(at_least=2, at_most=MOST_PAIRS))
    title: str | None = newer(None)  # of the report

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.title is not None and not 1 <= len(self.title.split()) <= MOST_TITLE_WORDS:
            raise ConfigError(
                f"claim.title={self.title}: must have 1 to {MOST_TITLE_WORDS} words, or be null"
            )
        if self.until not in (None, "decided"):
            raise ConfigError(f"claim.until={self.until}: must be decided or null")
        self._check_looks()
        self._check_grid()

    def _check_looks(self) -> None:
        for key, value in (
            ("most", self.most),
            ("decide", self.decide if self.decide != "zero" else None),
        ):
            if value is not None and self.until is None:
                raise ConfigError(
                    f"claim.{key}={value}: is for claim.until=decided; give that, or leave it out"
                )
        if self.looks is None:
            return
        given = f"claim.looks={show(self.looks)}"
        if self.until is None:
            raise ConfigError(f"{given}: looks need claim.until=decided")
        if not self.looks or self.looks != sorted({*self.looks}):
            raise ConfigError(f"{given}: must be rising numbers of pairs, as in [6,10,20]")
        if self.most not in (None, self.looks[-1]):
            raise ConfigError(f"{given}: must end with claim.most={self.most}")

    def _check_grid(self) -> None:
        if (self.tune is None) != (self.grid is None):
            given, missing = ("grid", "tune") if self.tune is None else ("tune", "grid")
            example = "KEY" if missing == "tune" else "[A,B,C]"
            raise ConfigError(
                f"claim.{given}={show(getattr(self, given))}: needs claim.{missing}, as in claim.{missing}={example}"
            )
        keys, grids = self.tuned_keys(), self.grids()
        given = f"claim.grid={show(self.grid)}"
        if len(keys) > 2 or len({*keys}) < len(keys) or not all(isinstance(k, str) for k in keys):
            raise ConfigError(f"claim.tune={show(self.tune)}: must be a key, or a list of two keys")
        if len(grids) != len(keys) or not all(isinstance(grid, list) for grid in grids):
            raise ConfigError(
                f"{given}: must be a list of values, with two keys a list of each: 'claim.grid=[1,2]', or [[1,2],[3,4]]"
            )
        for grid in grids:
            shown = [show(value) for value in grid]
            if len({*shown}) < max(2, len(shown)):
                raise ConfigError(f"{given}: must have two or more values, each once")

    def seeds_to_tune(self) -> range:
        """Return the seeds on which arms tune."""
        return range(FIRST_TUNING_SEED, FIRST_TUNING_SEED + self.tuning_seeds)

    def refuse_seeds_of_tuning(self, seeds: Iterable[int]) -> None:
        """Raise `ConfigError` for a seed of the claim on which its arms tune."""
        if self.tune and (taken := sorted({*seeds} & {*self.seeds_to_tune()})):
            raise ConfigError(
                f"seed={taken[0]}: is a seed of tuning too, which takes {FIRST_TUNING_SEED} and what follows; take others"
            )

    def tuned_keys(self) -> list[str]:
        """Return the keys that arms tune."""
        if self.tune is None:
            return []
        return list(self.tune) if isinstance(self.tune, list) else [self.tune]

    def grids(self) -> list[list[Any]]:
        """Return the values to choose from, of each tuned key."""
        if self.grid is None:
            return []
        return (
            list(self.grid) if isinstance(self.tune, list) and len(self.tune) > 1 else [self.grid]
        )


@dataclass
class Ledger(Section):
    """Where it is written down which claims were judged on which runs; null or empty: nowhere."""

    section: ClassVar[str] = "ledger"

    path: str | None = MISSING

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.path and self.path.lower() == "none":
            raise ConfigError(f"ledger.path={self.path}: without a ledger it is ledger.path=null")
        self.path = os.path.abspath(self.path) if self.path else None


MOST_AVERAGES = 30  # of a run: each costs as much memory as its weights


def average(kind: str, value: float) -> str:
    """Return the name of an average of weights: `ema:0.99`, of the key `averages.ema`."""
    return f"{kind}:{show(value)}"


@dataclass
class Averages(Section):
    """Averages of a run's weights, evaluated beside it; they never change what is trained."""

    section: ClassVar[str] = "averages"

    ema: list[float] = number(above=0, below=1)  # decays of exponential moving averages
    cycle_ends: list[int] = number(at_least=2)  # means over so many last cycle ends
    tail: list[float] = number(above=0, at_most=1)  # means over this last share of the epochs

    def __post_init__(self) -> None:
        super().__post_init__()
        for f in dataclasses.fields(self):
            values = getattr(self, f.name)
            if values != sorted({*values}):
                raise ConfigError(
                    f"averages.{f.name}={show(values)}: must be rising numbers, each once"
                )
        if (count := len(self.names())) > MOST_AVERAGES:
            raise ConfigError(f"averages: are {count}; at most {MOST_AVERAGES} are kept of a run")

    def names(self) -> list[str]:
        """Return the names of all averages, in the order of the history."""
        return [
            average(f.name, value)
            for f in dataclasses.fields(self)
            for value in getattr(self, f.name)
        ]


@dataclass
class Config(Section):
    """A whole run: with the code, all that its weights and its history follow from."""

    model: Model = MISSING
    dataset: Dataset = MISSING
    optimizer: Optimizer = MISSING
    scheduler: Scheduler = MISSING
    trainer: Trainer = MISSING
    store: Store = MISSING
    tracking: Tracking = MISSING
    claim: ClaimSettings = MISSING
    ledger: Ledger = added(Ledger(None))
    averages: Averages = added(Averages([], [], []))
    metrics: list[str] = added([])  # of extensions, evaluated beside acc and loss
    extensions: list[str] = added([])  # files and modules of one's own, as they were loaded
    reuse: bool = MISSING  # start from what the store holds, and add to it
    retry: bool = MISSING  # train again what diverged before
    seed: int = number(at_least=0, below=2**63)
