"""What names mean: which column is the metric, the LR, the epoch, the seed; which direction is better."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from statistics import median

from harness.config.errors import ConfigError, closest
from harness.config.measures import Measure
from harness.reading.recorded import listed

_HELD_OUT = {"val", "valid", "validation", "eval", "evaluation", "dev", "test", "holdout"}
SPLITS = {"train", "training"} | _HELD_OUT
_LOWER = {
    "loss", "err", "error", "errors", "perplexity", "ppl", "mse", "mae", "rmse", "fid", "wer", "cer", "nll", "brier",
    "ece", "bpb", "bpc", "latency",
}  # fmt: skip
_ACCURACY = {"acc", "accuracy", "top", "top1", "top5"}
_HIGHER = _ACCURACY | {
    "f1", "auc", "auroc", "ap", "map", "iou", "miou", "dice", "bleu", "rouge", "precision", "recall", "r2", "psnr",
    "ssim", "reward",
}  # fmt: skip
# which are fractions or percent
_SHARES = {"err", "error", "errors", "wer", "cer", "ece", "f1", "auc", "auroc", "ap", "map", "iou", "miou", "dice", "bleu", "rouge", "precision", "recall"}  # fmt: skip
_UNITS = {"deg", "degrees", "rad", "px", "pixel", "pixels", "m", "mm", "cm", "km", "ms", "s", "db", "ev", "mev", "kcal", "k"}  # fmt: skip
_OF_SETTINGS = {
    "weight", "size", "ratio", "scale", "fn", "type", "mask", "smoothing", "every", "interval", "coef", "lambda", "grad",
}  # fmt: skip
_SETTINGS_TOO = {"top", "precision", "reward"}  # which are settings as well, as in top_k
_BEST = {"best", "max", "maximum", "min", "minimum", "peak"}
_TURNED = {
    "neg", "negative", "negated", "minus", "inverse", "inv", "inverted", "complement", "drop", "gap", "diff", "delta",
    "std", "sd", "var", "variance", "stderr", "sem", "range", "decrease", "increase", "reduction", "reduced",
    "improvement", "improved", "improve", "gain", "gains", "saved", "saving", "savings", "lift", "worse",
    "forgetting", "forget", "forgotten", "degradation", "decline", "cost", "regret", "missed", "attack", "attacker",
    "backdoor", "mia", "membership", "poisoned",
}  # fmt: skip
_UNTIL = re.compile(
    r"""(?:time|epoch|step|iter|iteration|update|round|batch|sample|token|example|episode|generation|frame|flop|query|querie
    |call|trial|second|minute|hour|day)s?[ _-]*(?:to|until|till)[ _-]""",
    re.I | re.X,
)
_SAID = {
    "higher": re.compile(r"\bhigher is better\b|\\uparrow|[↑⬆▲]", re.I),
    "lower": re.compile(r"\blower is better\b|\\downarrow|[↓⬇▼]", re.I),
}
_DEVIATION = {"std", "sd", "stdev", "stddev", "stderr", "sem", "standard", "deviation"}
# words beside the name of a metric
_BOUND = {"se", "ci", "ci90", "ci95", "ci99", "sigma", "var", "variance", "lower", "upper"}
_BESIDE = {"mean", "avg", "average", "dev", "err", "error", "over", "across", "of", "seeds", "runs"}
_RUNS = re.compile(r"(?:(?:n|num|number|no|count|#)[ ._]*(?:of[ ._]*)?)?(?:seeds|runs|trials|repeats|repetitions|replicates)", re.I)  # fmt: skip
_FROM_ONE = re.compile(r"(?<![\w.])1\s*[-−–]")
_TOKEN = re.compile(r"[A-Z]?[a-z]+\d*|[A-Z]+(?![a-z])\d*")
_SEED = re.compile(
    r"(?:^|[._/-])(?:seed|(?:random|rng|manual|global)_?seed|seed_everything|random_state)[_#]*$", re.I
)  # fmt: skip
# lr-SGD/pg1: of Lightning, for the second group of parameters
_LR = re.compile(r"((?:^|.*[._/])(?:lr|learning_rate)(?:-[a-z]\w*)?)(?:[/_-]?(?:pg|param_groups?|group)?_?\d+)?$", re.I)  # fmt: skip
_OF_HELD_OUT = re.compile(
    rf"(?:{'|'.join(sorted(_HELD_OUT))})\d*(?:{'|'.join(sorted(_LOWER | _HIGHER))})?"
)
# before a count of all updates of a run
_OF_ALL = r"(?:^|[./])_?(?:(?:cur|current|train|training|trained|global|num|n|total|max|env)[_ ])*"
_EPOCH = re.compile(rf"{_OF_ALL}(?:(?:val|valid|validation|eval|test|fine_?tune)_)?epochs?$", re.I)
_REPEAT = re.compile(
    r"(?:^|[._/-])(?:trial|repeat|repetition|replicate|replication|rep|fold)$", re.I
)
_NO_SETTING = re.compile(
    r"""^(?:name|id|uuid|path|dir|folder|index|number|run\ \(column\))$
    |(?:^|[._/-])(?:
        host(?:name)?|node(?:_?name|list)?|queue|user(?:name)?|comments?|remarks?|pid|gpus?|devices?|num_workers|workers|verbose|port|url|notes?|tags?|entity|project
        |(?:run|rep|exp|experiment|trial|job|wandb|output|log|logging|save|work|working|checkpoint|ckpt|cache)
            [._]?(?:name|id|uuid|dir|folder|path|root)
        |timestamp|date(?:time)?(?:_(?:start|complete))?|time|created|created_at|updated|runtime|job_type|group
        |(?:artifact|tracking)_uri|experiment_key
    )$""",
    re.I | re.X,
)
_COUNTED = re.compile(r"(?:^|[._/-])(?:epochs?|steps?|iter(?:ation)?s?)$", re.I)
_NO_RESULT = re.compile(
    rf"runtime|per_second|(?:^|[._/-])(?:time|timestamp|total_flos|hp_metric)$|{_OF_ALL}(?:steps?|iter)$", re.I
)  # fmt: skip
# What a run came to: where it is, or stopped; what it took.
_COUNTER = re.compile(
    r"""^(?:epoch|_?step|global_step|trainer[./]global_step|iter|iteration)$
    |(?:^|[._/-])(?:best|last|final|current|stop(?:ped)?|end)[._-]?(?:epoch|step|iter(?:ation)?|update)$
    |(?:^|[._/-])converged(?:_at)?$
    |(?:^|[._/-])(?:epoch|step|iter(?:ation)?|update)s?[._-](?:done|trained|completed|finished|run|reached)$
    |(?:^|[._/-])(?:seconds|minutes|hours|duration|elapsed|runtime|wall_?time|(?:train(?:ing)?|total)_time|throughput|time(?=_))(?:_(?:m?s|secs?|mins?|h))?$
    |(?:^|[._/-])(?:time_(?:this_iter|total|since_restore)_s|(?:split\d+|rank)_(?:test|train)_score)$
    |(?:^|[._/-])(?:gpu|peak|max)_mem(?:ory)?(?:_[gm]i?b)?$""",
    re.I | re.X,
)
_STEPS = re.compile(
    r"""(?:(?:num|n|global|train(?:ing)?|total|time|env)[ _]?)*(?:steps|epochs|iterations|iters|updates|rounds|batches)
    |time_?step|round|episodes?|generation|elapsed|relative[ _]time(?:[ ]\(.*\))?|wall[ _]?(?:time|clock)""",
    re.I | re.X,
)
_RISING = re.compile(
    r"""(?:^|[_ -])(?:steps?|epochs?|iter(?:ation)?s?|itrs?|time_?steps?|rounds?|updates?|frames|(?:env)?interacts|episodes?
    |generations?|tokens|k?imgs?|checkpoint|ckpt|progress|(?:samples|examples|images|tokens)_seen)(?:[_ -]|$)
    |(?:^|_)(?:consumed|processed)_|^(?:batch(?:es)?|percent)$""",
    re.I | re.X,
)
_NO_COUNT = {
    "max", "min", "warmup", "decay", "milestone", "milestones", "inference", "sampling", "diffusion", "denoising", "shot",
    "per", "every", "interval", "restart", "patience", "freeze", "unfreeze", "start", "local", "inner", "size",
}  # fmt: skip
_OWN = re.compile(
    r"(?:store|tracking|ledger|claim|averages|plan)\.|(?:metrics|extensions|overrides)$"
)
# as MLflow, Neptune, Optuna and others write
_SETTING_OF = re.compile(r"(?:h?params?|parameters|config|args|tags)[._/]", re.I)
_METRIC_OF = re.compile(r"metrics[./]", re.I)


def no_setting(key: str) -> bool:
    """Return whether a key says where and by whom a run was made, or how it is called, and not what was trained."""
    return bool(_NO_SETTING.search(key) or _OWN.match(key))


def is_result(name: str) -> bool:
    """Return whether a recorded number may be what runs are compared by, and not a clock or a count."""
    return not _NO_RESULT.search(name)


def may_be_steps(names: Sequence[str]) -> list[str]:
    """Return the names that may be a step, or a budget, as `steps`, `epochs` and `elapsed`."""
    return [*filter(_STEPS.fullmatch, names)]


def may_rise(name: str) -> bool:
    """Return whether a number may count what a run has done so far, by its name, as `frames` and `train/epoch` do."""
    if words(name) & _NO_COUNT or is_measure(name):
        return False
    last = re.split(r"[./]", name)[-1]
    return bool(_RISING.search(re.sub(r"(?<=[a-z])(?=[A-Z])", "_", last)))


def is_clock(name: str) -> bool:
    """Return whether a column counts or measures time, as `epoch`, `global_step` and `runtime` do."""
    return bool(_EPOCH.search(name)) or not is_result(name)


def is_named_result(name: str) -> bool:
    """Return whether the name of a column says that it holds results, or counts what a run did, and is no setting."""
    tokens = words(name)
    if _COUNTER.search(_without_unit(name)):
        return True
    if name == "map" or _SETTING_OF.match(name):  # the map of a game, more often than mAP
        return False
    if _METRIC_OF.match(name):
        return True
    return bool(tokens & ((_LOWER | _HIGHER) - _SETTINGS_TOO)) and not tokens & _OF_SETTINGS


def _without_unit(name: str) -> str:
    """Return `train_time` for `Train time (s)`."""
    return re.sub(r"\s+", "_", re.sub(r"[(\[].*", "", name).strip())


def is_deviation(name: str, metric: str, several: bool) -> bool:
    """Return whether a column is the deviation of a metric, by its name: `acc_std` beside `acc`.

    One that names no metric, as `std`, is a setting too: it is the deviation if it has `several` numbers.
    """
    tokens, own = words(name), _as_short(words(metric))
    of = _as_short(tokens - _DEVIATION - _BOUND - (_BESIDE - own))
    sign = bool({*"±σ"} & {*name})
    if not of:
        return sign or (bool(tokens & _DEVIATION) and (several or bool(tokens & _BESIDE)))
    return of <= own and (sign or bool(tokens & (_DEVIATION | _BOUND)))


def _as_short(tokens: set[str]) -> set[str]:
    return {"acc" if one == "accuracy" else one for one in tokens}


def counts_runs(name: str) -> bool:
    """Return whether a column counts the runs of each row, by its name: `n_seeds`, `runs`."""
    return bool(_RUNS.fullmatch(name.strip()))


def is_meant(key: str, given: str) -> bool:
    """Return whether a key is `given` whole, or by its last parts."""
    return key == given or key.endswith((f".{given}", f"/{given}"))


def find_key(given: str, keys: Sequence[str], option: str) -> str:
    """Return the one of `keys` that is meant: itself, or the only one that ends in it. Raises `ConfigError`."""
    if given in keys:
        return given
    ending = [key for key in keys if is_meant(key, given)]
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
    return bool(_SEED.search(_without_unit(key)))


def may_be_factor(key: str) -> bool:
    """Return whether a setting may be what is compared, by its name."""
    return not (no_setting(key) or is_named_result(key) or is_seed(key))


def is_repeat(key: str) -> bool:
    """Return whether a key numbers repeats or folds, by its name."""
    return bool(_REPEAT.search(key))


def seed_candidates(keys: Sequence[str]) -> list[str]:
    """Return the keys that may make pairs, by their names: seeds, else repeats and folds."""
    return [*filter(is_seed, keys)] or [*filter(is_repeat, keys)]


def seed_keys(given: str | None, keys: Sequence[str]) -> list[str]:
    """Return the keys of the seed: those that are `given`, else the one that is called so; none for `none`.

    Raises `ConfigError` if that is open.
    """
    if given == "none":
        return []
    if given:
        names = [given] if given in keys else given.split(",")
        return [find_key(name, keys, "--seed") for name in names]
    found = seed_candidates(keys)
    if "seed" in found or (len(found) == 1 and is_seed(found[0])):
        return ["seed"] if "seed" in found else found
    if found:
        raise ConfigError(f"--seed: say which key makes the pairs, or none; found: {listed(found)}")
    return []


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
        elif (
            matching
            and role == "lr"
            and len({*map(_LR.sub, [r"\1"] * len(matching), matching)}) == 1
        ):
            found[role] = matching[0]
            notes.append(
                f"the lr is that of {found[role]}, of {listed(matching)}: --map lr=COLUMN takes another"
            )
        elif matching:
            notes.append(
                f"the {role} may be in {listed(matching)}: --map {role}=COLUMN says in which"
            )
    return found, notes


def metric_column(
    given: str | None, columns: Sequence[str], keys: Sequence[str], others: Sequence[str]
) -> str:
    """Return the column that is judged; `keys` are those of settings, `others` the seed, and the factor if it is known.

    Raises `ConfigError` where it is not there, or not given and open.
    """
    if given and given in keys and given not in columns:
        raise ConfigError(f"--metric {given}: has one value in each run, and was read as a setting; a table of final values judges it")  # fmt: skip
    found = find_key(given, columns, "--metric") if given else only_metric(columns, others)
    if "best" in words(found):
        raise ConfigError(
            f"--metric {found}: is a best value by its name, which is optimistic; name a last one"
        )
    return found


def may_be_best(name: str) -> bool:
    """Return whether a number may be a best value by its name."""
    return bool(words(name) & _BEST)


def is_measure(name: str) -> bool:
    """Return whether a column is an accuracy, a loss or the like, by its name."""
    return is_named_result(name) and not _COUNTER.search(_without_unit(name))


def only_metric(columns: Sequence[str], others: Sequence[str]) -> str:
    """Return the column that is judged where none is given: one accuracy of held-out data, else one number.

    `others` are none of them: the seed, and the factor if it is known. Raises `ConfigError`.
    """
    numbers = [name for name in columns if name not in others and not _is_count(name)]
    found = [name for name in numbers if _may_be_metric(name)] or numbers
    # of names that are not known, one may be a setting, and best values be all that was recorded
    best = [] if any(map(is_measure, found)) else [name for name in numbers if is_measure(name)]
    held_out = [*filter(is_held_out, found)]
    accuracies = [*filter(is_accuracy, found)]
    candidates = (
        [*dict.fromkeys([*found, *best])] * bool(best)
        or [*filter(is_accuracy, held_out)]
        or [*held_out, *(name for name in accuracies if not words(name) & SPLITS)]
        or accuracies
        or found
    )
    if len(candidates) == 1:
        return candidates[0]
    raise ConfigError(
        f"--metric: say which number is judged; found: {listed(candidates or columns)}"
    )


def _is_count(name: str) -> bool:
    """Return whether a column counts steps, and is no mean over one, as Lightning's `val_acc_epoch`."""
    return bool(_COUNTED.search(name)) and not (
        is_measure(name) and name.endswith(("_epoch", "_step"))
    )


def _may_be_metric(name: str) -> bool:
    no_value = no_setting(name) or is_clock(name) or _LR.search(name) or _is_of_settings(name)
    return not (
        no_value or _SETTING_OF.match(name) or is_seed(name) or is_repeat(name) or may_be_best(name)
    )


def _is_of_settings(name: str) -> bool:
    """Return whether a name ends as those of settings do, as `test_size`, or is `top_p` or `top_k`."""
    tokens = words(name)
    top = tokens & (_LOWER | _HIGHER) == {"top"} and tokens & {"k", "p"}
    last = _TOKEN.findall(_without_unit(name))[-1:]
    return bool({*map(str.lower, last)} & _OF_SETTINGS or "grad" in tokens or top)


def is_held_out(name: str) -> bool:
    """Return whether a metric is of data that was not trained on, by its name: `val/acc`, `testAcc`, `evalloss`."""
    return any(map(_OF_HELD_OUT.fullmatch, words(name)))


def is_accuracy(name: str) -> bool:
    """Return whether a metric is a share of right answers, by its name, and not what led to one."""
    tokens = words(name)
    top = tokens & _ACCURACY == {"top"} and tokens & {"k", "p"}
    return bool(tokens & _ACCURACY) and not ("grad" in tokens or top or _UNTIL.search(name))


def is_share(name: str) -> bool:
    """Return whether a metric may be a fraction or in percent, by its name."""
    tokens = words(name)
    return is_accuracy(name) or bool(
        tokens & _SHARES and not (tokens & _UNITS or _UNTIL.search(name))
    )


def words(name: str) -> set[str]:
    """Return the words of a name in lower case: `valAcc` has `val` and `acc`."""
    return {token.lower() for token in _TOKEN.findall(name)}


def direction(name: str, better: str | None) -> str:
    """Return whether `higher` or `lower` is better, as given or as the name says. Raises `ConfigError` if it does not."""
    if better is not None:
        return better
    if len(said := [better for better, pattern in _SAID.items() if pattern.search(name)]) == 1:
        return said[0]
    tokens = words(name)
    lower, higher = bool(tokens & _LOWER), bool(tokens & _HIGHER)
    turned = (
        tokens & _TURNED
        or _UNTIL.search(name)
        or _FROM_ONE.search(name)
        or name.startswith(("-", "−"))
    )
    if lower == higher or turned:
        raise ConfigError(f"--better: say whether higher or lower is better of {name}")
    return "lower" if lower else "higher"


def measure(
    name: str, better: str, ends: Sequence[float], margin: float | None
) -> tuple[Measure, float]:
    """Return what a metric means whose finite last values are `ends`, and the margin: as given, else the usual one.

    Accuracies are in % if none is below 0 or above 100 and half are above 1.5; the usual margin is 0.2 points then, and
    0.002 where all lie between 0 and 1. Raises `ConfigError` for others without a margin.
    """
    accuracies = is_accuracy(name) and len(ends) > 0
    within = accuracies and min(ends) >= 0
    if within and max(ends) <= 100 and median(ends) > 1.5:
        return Measure(better, "%"), 0.2 if margin is None else margin
    if margin is None and not (within and max(ends) <= 1 and better == "higher"):
        raise ConfigError(
            f"--margin: say the smallest difference of {name} that matters, in its own unit"
        )
    return Measure(better, ""), 0.002 if margin is None else margin
