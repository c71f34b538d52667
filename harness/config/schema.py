"""What a run is made of: typed sections, checked where they enter, registered with Hydra.

`load` is the last place that knows Hydra: below it there is no `DictConfig`, only `Config`.
Defaults live in `conf/`, where users read them; the classes here give types, ranges and meaning.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import os
import re
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import cache, cached_property
from itertools import count
from pathlib import Path
from typing import Any, ClassVar

from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from omegaconf import MISSING, DictConfig, OmegaConf
from omegaconf.errors import InterpolationResolutionError, MissingMandatoryValue

_CONF = Path(__file__).resolve().parents[2] / "conf"
MOST_EPOCHS = 1e6  # of a budget


class ConfigError(ValueError):
    """A configuration that makes no sense; the message is one line with the key and the mend."""


def nearest(name: str, names: Sequence[str]) -> str:
    """A hint that lists `names`, led by the one that `name` was probably meant to be."""
    close = get_close_matches(name, names, n=1, cutoff=0.6)
    hint = f"did you mean {close[0]}? " if close else ""
    return f"{hint}choose from {', '.join(names)}"


def number(
    *,
    above: float | None = None,
    at_least: float | None = None,
    below: float | None = None,
    at_most: float | None = None,
) -> Any:
    """A required number (or list of numbers, or null if the type says so) within bounds."""
    bounds = {">": above, "≥": at_least, "<": below, "≤": at_most}
    return field(
        default=MISSING,
        metadata={"bounds": {sign: b for sign, b in bounds.items() if b is not None}},
    )


def duration(**least: float) -> Any:
    """A required number of epochs or updates, below where counting in floats ends."""
    return number(**least, at_most=1e9)


def choice(*names: str) -> Any:
    """A required string, one of `names`."""
    return field(default=MISSING, metadata={"choices": names})


def added(before: object, declared: Any = None) -> Any:
    """A key that is newer than checkpoints in use, declared as by `number` and `choice`.

    At the value `before` the program does what it did when there was no such key.
    """
    metadata = {} if declared is None else declared.metadata
    return field(default=MISSING, metadata={**metadata, "before": before})


_WORDS = {
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "str": "text",
    "list[float]": "a list of numbers",
    "list[str]": "a list of texts",
}


def wanted(f: dataclasses.Field[Any]) -> str:
    """What fits a field, in words: `must be a whole number ≥ 1`."""
    if "choices" in f.metadata:
        return f"choose from {', '.join(map(str, f.metadata['choices']))}"
    type_, _, null = str(f.type).partition(" | ")
    bounds = " and ".join(
        f"{sign} {b:g}" if isinstance(b, float) else f"{sign} {b}"
        for sign, b in f.metadata.get("bounds", {}).items()
    )
    words = f"{_WORDS.get(type_, 'keys and values')} {bounds}".rstrip()
    return f"must be {words} or null" if null else f"must be {words}"


def show(value: object) -> str:
    """`value` as one would write it on the command line."""
    match value:
        case None | bool():
            return {None: "null", True: "true", False: "false"}[value]
        case float():
            return repr(value).removesuffix(".0")
        case list():
            return f"[{','.join(map(show, value))}]"
    return str(value)


def _within(value: object, bounds: dict[str, float]) -> bool:
    if value is None:
        return True
    if isinstance(value, list):
        return all(_within(item, bounds) for item in value)
    assert isinstance(value, int | float)
    holds = {
        ">": lambda b: value > b,
        "≥": lambda b: value >= b,
        "<": lambda b: value < b,
        "≤": lambda b: value <= b,
    }
    finite = isinstance(value, int) or math.isfinite(value)
    return finite and all(holds[sign](b) for sign, b in bounds.items())


@dataclass
class Section:
    """One group of the configuration; checks every field against the bounds declared with it."""

    section: ClassVar[str] = ""

    def __post_init__(self) -> None:
        for f in dataclasses.fields(self):
            key = f"{self.section}.{f.name}" if self.section else f.name
            value = getattr(self, f.name)
            if value == MISSING:
                raise ConfigError(f"{key}: has no value; give one with {key}=VALUE")
            if "bounds" in f.metadata and not _within(value, f.metadata["bounds"]):
                raise ConfigError(f"{key}={show(value)}: {wanted(f)}")
            if "choices" in f.metadata and value not in f.metadata["choices"]:
                names = [str(name) for name in f.metadata["choices"]]
                raise ConfigError(f"{key}={value}: {nearest(str(value), names)}")


# --- model ---------------------------------------------------------------------------------------


@dataclass
class Model(Section):
    section: ClassVar[str] = "model"


@dataclass
class ResNet(Model):
    """The ResNets for small images of He et al. 2015, section 4.2: depth 6n+2, three stages."""

    depth: int = number(at_least=8, at_most=10_000)
    width: int = number(at_least=1, at_most=4096)  # channels of the first stage; then 2x, 4x

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.depth - 2) % 6:
            low = self.depth - (self.depth - 2) % 6
            raise ConfigError(
                f"model.depth={self.depth}: must be 6n+2; the nearest are {low} and {low + 6}"
            )


@dataclass
class Torchvision(Model):
    """Any torchvision classifier, by name."""

    arch: str = MISSING
    stem: str = choice("small", "imagenet")


# --- dataset -------------------------------------------------------------------------------------


@dataclass(unsafe_hash=True)
class Dataset(Section):
    """Images with labels, split once by `split_seed`.

    Sizes below 1 are shares of the images they are cut from, others are counts.
    """

    section: ClassVar[str] = "dataset"

    val_size: float = number(above=0)
    train_size: float | None = number(above=0)  # null: all that validation leaves
    split_seed: int = number(at_least=0, below=2**63)
    crop: int = number(at_least=0, at_most=64)  # pixels of zero padding that a random crop moves in
    flip: bool = MISSING  # mirror left-right with probability 1/2


@dataclass(unsafe_hash=True)
class Digits(Dataset):
    """The 1,797 8x8 digits that ship inside scikit-learn; they have no test set of their own."""

    test_size: float = number(above=0)


@dataclass(unsafe_hash=True)
class Synthetic(Dataset):
    """Noisy copies of one random template a class: for trying things out, at any size."""

    test_size: float = number(above=0)
    images: int = number(at_least=1, at_most=1e8)
    image_size: int = number(at_least=1, at_most=1024)
    channels: int = choice(1, 3)  # type: ignore[arg-type]
    classes: int = number(at_least=2, at_most=1e6)
    noise: float = number(at_least=0, at_most=1e6)  # standard deviation, in the templates' own


@dataclass(unsafe_hash=True)
class TorchvisionDataset(Dataset):
    """A data set that torchvision reads (and downloads), with its own test set."""

    name: str = choice("fashion_mnist", "mnist", "cifar10", "cifar100", "svhn")
    root: str = MISSING
    download: bool = MISSING


@dataclass(unsafe_hash=True)
class ImageFolder(Dataset):
    """`root/train/CLASS/*` and `root/test/CLASS/*`, streamed from disk by worker processes."""

    root: str = MISSING
    image_size: int = number(at_least=1, at_most=4096)
    workers: int = number(at_least=0, at_most=256)


# --- optimizer -----------------------------------------------------------------------------------


@dataclass
class Optimizer(Section):
    section: ClassVar[str] = "optimizer"

    lr: float = number(above=0, below=1e6)  # the peak, from which schedules come down
    weight_decay: float = number(at_least=0, below=1e6)


@dataclass
class SGD(Optimizer):
    momentum: float = number(at_least=0, below=1)
    nesterov: bool = MISSING

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.nesterov and self.momentum == 0:
            raise ConfigError(
                "optimizer.nesterov=true: needs optimizer.momentum > 0, or optimizer.nesterov=false"
            )


@dataclass
class AdamW(Optimizer):
    beta1: float = number(at_least=0, below=1)
    beta2: float = number(at_least=0, below=1)
    eps: float = number(above=0, below=1)


# --- scheduler -----------------------------------------------------------------------------------


@dataclass
class Scheduler(Section):
    """A learning-rate schedule. Durations count epochs, or updates with `unit: batch`.

    `interval: batch` moves the LR at every update, `epoch` only between epochs.
    """

    section: ClassVar[str] = "scheduler"

    warmup: float = duration(at_least=0)  # the LR rises linearly to its peak; the schedule follows
    interval: str = choice("batch", "epoch")
    unit: str = choice("epoch", "batch")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.unit == "batch" and self.interval == "epoch":
            raise ConfigError(
                "scheduler.unit=batch: periods in batches need scheduler.interval=batch"
            )


@dataclass
class Cosine(Scheduler):
    """CosineAnnealingLR: down in `t_max`, up in the next `t_max`, and so on."""

    t_max: float | None = duration(above=0)  # null: all of the budget that warm-up leaves
    eta_min: float = number(at_least=0)


@dataclass
class CosineWarm(Scheduler):
    """CosineAnnealingWarmRestarts (SGDR, Loshchilov & Hutter 2017)."""

    t_0: float = duration(above=0)
    t_mult: int = number(at_least=1, at_most=1e6)
    eta_min: float = number(at_least=0)


@dataclass
class Step(Scheduler):
    """StepLR: times `gamma` every `step_size`."""

    step_size: float = duration(above=0)
    gamma: float = number(above=0, at_most=1)


@dataclass
class MultiStep(Scheduler):
    """MultiStepLR: times `gamma` at each milestone."""

    milestones: list[float] = duration(above=0)
    gamma: float = number(above=0, at_most=1)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.milestones or sorted(set(self.milestones)) != self.milestones:
            raise ConfigError(
                f"scheduler.milestones={show(self.milestones)}: must be rising, with at least one"
            )


@dataclass
class Linear(Scheduler):
    """Linearly from the peak to zero at the end of the budget."""


@dataclass
class Constant(Scheduler):
    """The peak throughout."""


@dataclass
class WSD(Scheduler):
    """Constant, then a linear cooldown to zero (Hägele et al. 2024)."""

    cooldown: float = duration(above=0)  # the length of the cooldown that ends the budget


@dataclass
class OneCycle(Scheduler):
    """OneCycleLR's learning rate (Smith & Topin 2018); the momentum is left alone."""

    pct_start: float = number(above=0, below=1)  # share of the budget in which the LR rises
    div_factor: float = number(at_least=1)
    final_div_factor: float = number(at_least=1)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.warmup:
            raise ConfigError(
                f"scheduler.warmup={show(self.warmup)}: one_cycle rises by itself; "
                "set scheduler.pct_start and leave scheduler.warmup=0"
            )


# --- trainer, tracking ---------------------------------------------------------------------------


@dataclass
class Trainer(Section):
    section: ClassVar[str] = "trainer"

    epochs: float = number(above=0, at_most=MOST_EPOCHS)
    batch_size: int = number(at_least=1)
    label_smoothing: float = number(at_least=0, below=1)
    precision: str = choice("auto", "fp32", "bf16", "fp16")
    device: str = MISSING  # auto, cpu, cuda or cuda:N
    deterministic: bool = MISSING  # on CUDA: only deterministic kernels, bit-equal and slower
    compile: str = choice("none", "default", "reduce-overhead")
    channels_last: bool = MISSING
    evals_per_epoch: int = number(at_least=1)
    log_every: int = number(at_least=1)  # updates between two training rows of the history
    checkpoint_every: float = number(at_least=0)  # seconds

    def __post_init__(self) -> None:
        super().__post_init__()
        if not re.fullmatch(r"auto|cpu|cuda(:(0|[1-9][0-9]?))?", self.device):
            raise ConfigError(
                f"trainer.device={self.device}: choose from auto, cpu, cuda, cuda:N (as in cuda:0)"
            )


@dataclass
class Store(Section):
    """Where checkpoints lie, and which are kept once a run is over."""

    section: ClassVar[str] = "store"

    dir: str = MISSING
    keep: str = choice("cycles", "last", "none")
    wait: bool = MISSING  # for a run under way that will store a longer beginning of this one

    def __post_init__(self) -> None:
        super().__post_init__()
        self.dir = os.path.abspath(self.dir)  # it is recorded, and read from other folders


@dataclass
class Tracking(Section):
    section: ClassVar[str] = "tracking"


@dataclass
class NoTracking(Tracking):
    """The run folder only."""


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
class Claim(Section):
    """What a sweep is judged by; fixed in its `plan.json` before the first update."""

    section: ClassVar[str] = "claim"

    factor: str | None = (
        MISSING  # the swept key that is judged; null: the scheduler's, or the only one
    )
    baseline: str | None = MISSING  # null: the first level of the sweep
    treatments: list[str] | None = MISSING  # null: all other levels
    metric: str = choice("val/acc", "test/acc")  # after the last update
    margin: float = number(at_least=0, below=100)  # points of accuracy that matter
    level: float = number(above=0, below=0.5)  # of the test


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
    claim: Claim = MISSING
    reuse: bool = MISSING  # start from what the store holds, and add to it
    retry: bool = MISSING  # train again what diverged before
    seed: int = number(at_least=0, below=2**63)


SCHEMAS: dict[str, dict[str, type[Section]]] = {
    "model": {"resnet": ResNet, "torchvision": Torchvision},
    "dataset": {
        "digits": Digits,
        "synthetic": Synthetic,
        "torchvision": TorchvisionDataset,
        "image_folder": ImageFolder,
    },
    "optimizer": {"sgd": SGD, "adamw": AdamW},
    "scheduler": {
        "cosine": Cosine,
        "cosine_warm": CosineWarm,
        "step": Step,
        "multistep": MultiStep,
        "linear": Linear,
        "constant": Constant,
        "wsd": WSD,
        "one_cycle": OneCycle,
    },
    "trainer": {"default": Trainer},
    "store": {"default": Store},
    "claim": {"default": Claim},
    "tracking": {"wandb": Wandb, "none": NoTracking},
}


def register() -> None:
    """Make the sections known to Hydra, as the `schema` group that the files in `conf/` build on."""
    store: Any = ConfigStore.instance()
    store.__deepcopy__ = lambda memo: store  # Hydra copies it, whole, at each look at a group
    store.store(name="schema", node=Config)
    for group, kinds in SCHEMAS.items():
        for name, node in kinds.items():
            store.store(group=f"schema/{group}", name=name, node=node, package=group)
    OmegaConf.register_new_resolver("groups", _groups, replace=True)
    OmegaConf.register_new_resolver("unused", unused_folder, use_cache=True, replace=True)
    OmegaConf.register_new_resolver("project", lambda: str(_CONF.parent), replace=True)
    OmegaConf.register_new_resolver("epochs", _in_epochs, replace=True)


def unused_folder(path: str) -> str:
    """Make the folder `path`, with a number behind its name if it is there: the resolver `${unused:}`.

    Two commands of one second then have two folders.
    """
    candidate = Path(path)
    candidate.parent.mkdir(parents=True, exist_ok=True)
    for number in count(2):
        try:
            candidate.mkdir()
        except FileExistsError:
            candidate = Path(f"{path}_{number}")
        else:
            break
    return str(candidate)


@cache
def choices() -> dict[str, list[str]]:
    """The groups of `conf/` with the names of their files, numbers in them in counting order."""

    def counting(name: str) -> list[str]:
        return [part.zfill(9) if part.isdecimal() else part for part in re.split(r"(\d+)", name)]

    found: dict[str, list[str]] = {}
    for file in _CONF.glob("*/**/*.yaml"):
        found.setdefault(file.parent.relative_to(_CONF).as_posix(), []).append(file.stem)
    found.pop("hydra/help", None)
    return {group: sorted(found[group], key=counting) for group in sorted(found)}


def _groups() -> str:
    """The resolver `${groups:}` of the help: all choices, those of this command line starred."""
    chosen = HydraConfig.get().runtime.choices
    found = choices()
    indent = 4 + max(map(len, found))
    return "\n".join(
        textwrap.fill(
            "  ".join(f"{name}*" if name == chosen.get(group) else name for name in names),
            width=80,
            initial_indent=f"  {group}".ljust(indent),
            subsequent_indent=" " * indent,
            break_on_hyphens=False,
        )
        for group, names in found.items()
    )


def _in_epochs(default: Any, *, _parent_: DictConfig) -> Any:
    """Return a default duration, as in `t_0: ${epochs:5}`; raise `ConfigError` where durations count updates."""
    if (_parent_.unit, _parent_.interval) == ("batch", "batch"):
        raise ConfigError(f"its default, {show(default)}, counts epochs")
    return default


def load(composed: DictConfig) -> Config:
    """The typed, checked configuration that Hydra composed.

    Raises `ConfigError` for a value out of its range, for a value that nobody gave, and for a key
    that `+` added to the schema.
    """
    try:
        config = OmegaConf.to_object(composed)
    except InterpolationResolutionError as error:
        cause: BaseException | None = error
        while cause and not isinstance(cause, ConfigError):
            cause = cause.__context__
        if cause is None:
            raise
        key = error.full_key
        raise ConfigError(
            f"{key}: {cause}; with scheduler.unit=batch give updates, {key}=VALUE"
        ) from None
    except MissingMandatoryValue:
        key = min(OmegaConf.missing_keys(composed))
        raise ConfigError(f"{key}: has no value; give one with {key}=VALUE") from None
    assert isinstance(config, Config)
    for section in (config, *vars(config).values()):
        if isinstance(section, Section):
            known = {f.name for f in dataclasses.fields(section)}
            for name in [name for name in vars(section) if name not in known]:
                given = f"{section.section}.{name}={show(getattr(section, name))}".lstrip(".")
                raise ConfigError(f"{given}: {unknown_key(type(section), name)}")
    return config


def unknown_key(section: type[Section], name: str) -> str:
    """What to say of a key that `section` does not have."""
    names = [f.name for f in dataclasses.fields(section)]
    if section is Config:
        return f"is neither a key nor a group; {nearest(name, sorted({*names, *choices()}))}"
    has = nearest(name, names) if names else "it has none"
    return f"is not a key of the {section.section} {kind(section)}; {has}"


def kind(section: Section | type[Section]) -> str:
    """The section's name among its alternatives, as in `SCHEMAS`."""
    own = section if isinstance(section, type) else type(section)
    return next(name for name, node in SCHEMAS[section.section].items() if node is own)


def to_dict(config: Config) -> dict[str, Any]:
    """`config` as plain values, each section with its `kind`: for W&B, results and hashes."""
    return {
        f.name: {"kind": kind(value), **dataclasses.asdict(value)}
        if isinstance(value := getattr(config, f.name), Section)
        else value
        for f in dataclasses.fields(config)
    }


def without_added(config: Config) -> dict[str, Any]:
    """`to_dict`, less the keys that were `added` later and change nothing."""
    values = to_dict(config)
    for section, kept in [(config, values), *((getattr(config, n), values[n]) for n in SCHEMAS)]:
        for name, before in _before(type(section)).items():
            if getattr(section, name) == before:
                del kept[name]
    return values


def _before(section: type[Section]) -> dict[str, Any]:
    """The `added` keys of a section, with the value of each that changes nothing."""
    fields = dataclasses.fields(section)
    return {f.name: f.metadata["before"] for f in fields if "before" in f.metadata}


# What leaves a run the one that was planned: where its files go, and whether it is trained at all.
SAME_RUN = ("store.", "tracking.", "reuse", "retry", "trainer.checkpoint_every")
_SAME_WEIGHTS = (*SAME_RUN, "claim.")  # its claim is the one of the sweep's plan.json


def changes(
    then: dict[str, Any], now: dict[str, Any], allowed: tuple[str, ...] = _SAME_WEIGHTS
) -> list[str]:
    """What would make another run of it, as `KEY=NOW (was THEN)`, between two of `to_dict`.

    Keys that begin with one of `allowed` may differ.
    """
    before, after = flat(then), flat(now)
    return [
        f"{key}={show(after.get(key))} (was {show(before.get(key))})"
        for key in sorted(before.keys() | after.keys())
        if not key.startswith(allowed) and before.get(key) != after.get(key)
    ]


def flat(values: dict[str, Any]) -> dict[str, Any]:
    """`{"optimizer": {"lr": 0.1}, "seed": 0}` as `{"optimizer.lr": 0.1, "seed": 0}`."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        parts = value if isinstance(value, dict) else {"": value}
        found |= {f"{name}.{key}".rstrip("."): part for key, part in parts.items()}
    return found


@dataclass(frozen=True)
class Composed:
    """A checked configuration, and the text of each value that was given as `${…}`, by its key."""

    config: Config
    interpolated: dict[str, Any]

    @cached_property
    def values(self) -> dict[str, Any]:
        """`to_dict` of the configuration."""
        return to_dict(self.config)

    @cached_property
    def sha256(self) -> str:
        """Equal for two jobs that are the same run of a sweep.

        A value given as `${…}` counts by its text: what `${now:%f}` or `${oc.env:NAME}` came to when
        the sweep was planned is what the run is trained with.
        """
        values = flat(self.values) | self.interpolated
        same = {key: value for key, value in values.items() if not key.startswith(SAME_RUN)}
        return hashlib.sha256(json.dumps(same, sort_keys=True).encode()).hexdigest()


def load_composed(composed: DictConfig) -> Composed:
    """`load`, keeping the text of interpolations. Raises `ConfigError`."""
    raw: Any = OmegaConf.to_container(composed, resolve=False)
    texts = {key: value for key, value in flat(raw).items() if "${" in str(value)}
    return Composed(load(composed), texts)


def from_dict(values: dict[str, Any]) -> Config:
    """The `Config` that `to_dict` made `values` of. Raises `ConfigError` if they do not fit.

    Keys that were `added` since then have the value of before they existed.
    """
    try:
        parts = {
            name: _section(name, value) if name in SCHEMAS else value
            for name, value in values.items()
        }
        return Config(**_before(Config) | parts)
    except (KeyError, TypeError) as error:
        raise ConfigError(f"a recorded configuration is not of this version: {error}") from error


def _section(group: str, values: dict[str, Any]) -> Section:
    node = SCHEMAS[group][values["kind"]]
    return node(**_before(node) | {k: v for k, v in values.items() if k != "kind"})
