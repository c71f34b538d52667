"""What names mean: which column is the metric, the LR, the epoch, the seed; which direction is better."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import polars as pl

from harness.config.errors import ConfigError, closest
from harness.config.measures import Measure

_LOWER = {
    "loss", "err", "error", "errors", "perplexity", "ppl", "mse", "mae", "rmse", "fid", "wer", "cer", "nll", "brier",
    "ece", "bpb", "bpc", "latency",
}  # fmt: skip
_ACCURACY = {"acc", "accuracy", "top", "top1", "top5"}
_HIGHER = _ACCURACY | {
    "f1", "auc", "auroc", "ap", "map", "iou", "miou", "dice", "bleu", "rouge", "precision", "recall", "r2", "psnr",
    "ssim", "reward",
}  # fmt: skip
_TURNED = {"neg", "negative", "negated", "minus", "inverse", "inv", "inverted", "complement"}
_TOKEN = re.compile(r"[A-Z]?[a-z]+\d*|[A-Z]+(?![a-z])\d*")
_SEED = re.compile(
    r"(?:^|[._/-])(?:seed|(?:random|rng|manual|global)_?seed|seed_everything)$", re.I
)
_LR = re.compile(
    r"(?:^|[._/])(?:lr|learning_rate)(?:-\w+)?$", re.I
)  # lr-SGD is of Lightning's LearningRateMonitor
_EPOCH = re.compile(r"(?:^|[._/])epochs?$", re.I)
_REPEAT = re.compile(
    r"(?:^|[._/-])(?:trial|repeat|repetition|replicate|replication|rep|fold)$", re.I
)
_NO_SETTING = re.compile(
    r"""^(?:name|id|uuid|path|dir|folder)$
    |(?:^|[._/-])(?:
        host(?:name)?|user(?:name)?|pid|gpus?|devices?|num_workers|workers|verbose|port|url|notes?|tags?|entity|project
        |(?:run|exp|experiment|trial|job|wandb|output|log|logging|save|work|working|checkpoint|ckpt|cache)
            [._]?(?:name|id|uuid|dir|folder|path|root)
        |timestamp|date|datetime|time|created|created_at|updated|runtime|job_type|group
    )$""",
    re.I | re.X,
)
_NO_RESULT = re.compile(
    r"runtime|per_second|(?:^|[._/-])(?:time|timestamp|total_flos|steps?|iter|hp_metric)$", re.I
)
_OWN = (
    "store.",
    "tracking.",
    "ledger.",
    "claim.",
    "averages.",
    "metrics",
    "extensions",
    "overrides",
    "plan.",
)
_MOST_NAMED = 12


def listed(names: Sequence[str], most: int = _MOST_NAMED) -> str:
    """Return names as text, of many the first few."""
    return ", ".join(names[:most]) + f", … ({len(names)} in all)" * (len(names) > most)


def counted(number: int, what: str) -> str:
    """Return `1 run`, `2 runs`."""
    return f"{number:,} {what}{'s' * (number != 1)}"


def no_setting(key: str) -> bool:
    """Return whether a key says where and by whom a run was made, or how it is called, and not what was trained."""
    return bool(_NO_SETTING.search(key)) or key.startswith(_OWN)


def is_result(name: str) -> bool:
    """Return whether a recorded number may be what runs are compared by, and not a clock or a count."""
    return not _NO_RESULT.search(name)


def find_key(given: str, keys: Sequence[str], option: str) -> str:
    """Return the one of `keys` that is meant: itself, or the only one whose last part it is. Raises `ConfigError`."""
    if given in keys:
        return given
    ending = [key for key in keys if re.split(r"[./]", key)[-1] == given]
    if len(ending) == 1:
        return ending[0]
    if len(ending) > 1:
        raise ConfigError(
            f"{option} {given}: is the last part of {listed(ending)}; give the whole name"
        )
    meant = closest(given, keys)
    hint = f"did you mean {meant}? " * (meant is not None)
    raise ConfigError(
        f"{option} {given}: is not in the source; {hint}found: {listed(keys) or 'none'}"
    )


def is_seed(key: str) -> bool:
    return bool(_SEED.search(key))


def seed_key(given: str | None, keys: Sequence[str]) -> str | None:
    """Return the key of the seed, None where there is none or `given` is none. Raises `ConfigError` if it is open."""
    if given == "none":
        return None
    if given:
        return find_key(given, keys, "--seed")
    found = [*filter(is_seed, keys)]
    if "seed" in found or len(found) == 1:
        return "seed" if "seed" in found else found[0]
    if found := found or [key for key in keys if _REPEAT.search(key)]:
        raise ConfigError(f"--seed: say which key makes the pairs, or none; found: {listed(found)}")
    return None


def roles(
    metric: str, columns: Sequence[str], mapping: Mapping[str, str]
) -> tuple[dict[str, str], list[str]]:
    """Return the columns that are read, by `value` (the metric), `lr` and `epoch`, where these are known; and notes.

    Raises `ConfigError` for a column of `mapping` that is not there.
    """
    found, notes = {"value": metric}, []
    others = [name for name in columns if name != metric]
    for role, pattern in (("lr", _LR), ("epoch", _EPOCH)):
        matching = [name for name in others if pattern.search(name)]
        exact = [name for name in matching if name.lower() == role]
        if role in mapping:
            found[role] = find_key(mapping[role], columns, f"--map {role}=")
        elif len(exact or matching) == 1:
            found[role] = (exact or matching)[0]
        elif matching:
            notes.append(
                f"the {role} may be in {listed(matching)}: --map {role}=COLUMN says in which"
            )
    return found, notes


def metric_column(given: str | None, columns: Sequence[str]) -> str:
    """Return the column that is judged. Raises `ConfigError` where it is not there, or not given and open."""
    if given:
        return find_key(given, columns, "--metric")
    held_out = [name for name in columns if re.search(r"val|eval|dev|test", name, re.I)]
    accuracies = [name for name in held_out if _ACCURACY & _tokens(name)]
    for found in (accuracies, held_out, list(columns)):
        if len(found) == 1:
            return found[0]
    raise ConfigError(
        f"--metric: say which number is judged; found: {listed(accuracies or columns)}"
    )


def _tokens(name: str) -> set[str]:
    return {token.lower() for token in _TOKEN.findall(name)}


def measure(name: str, better: str | None, values: pl.Series) -> Measure:
    """Return direction and unit of a metric: % of accuracies above 1.5. Raises `ConfigError` if the name does not say.

    `values` are the finite ones that were recorded.
    """
    tokens = _tokens(name)
    if better is None:
        lower, higher = bool(tokens & _LOWER), bool(tokens & _HIGHER)
        if lower == higher or tokens & _TURNED:
            raise ConfigError(f"--better: say whether higher or lower is better of {name}")
        better = "lower" if lower else "higher"
    low, high = values.min(), values.max()
    assert low is None or isinstance(low, float)
    assert high is None or isinstance(high, float)
    percent = (
        bool(tokens & _ACCURACY)
        and low is not None
        and high is not None
        and low >= 0
        and 1.5 < high <= 100
    )
    return Measure(better, "%" if percent else "")


def usual_margin(name: str, measure: Measure, given: float | None) -> float:
    """Return the margin: as given, 0.2 points of accuracies, 0.002 of those between 0 and 1. Raises `ConfigError`."""
    if given is not None:
        return given
    if measure.unit == "%":
        return 0.2
    if _ACCURACY & _tokens(name) and measure.better == "higher":
        return 0.002
    raise ConfigError(
        f"--margin: say the smallest difference of {name} that matters, in its own unit"
    )
