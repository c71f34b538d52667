"""What was trained, on what and by which program: from the files that the runs left, else from their plan."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePath
from typing import Any

import polars as pl

from harness.analysis import results
from harness.analysis.arms import NO_SETTINGS
from harness.config.values import flat

_NAMES = {
    "fashion_mnist": "Fashion-MNIST", "mnist": "MNIST", "cifar10": "CIFAR-10",
    "cifar100": "CIFAR-100", "svhn": "SVHN", "sgd": "SGD", "adamw": "AdamW", "cpu": "CPU",
}  # fmt: skip
_USUAL_WIDTH = 16  # of a ResNet for small images
_MOST_NAMED = 3


def what_was_trained(runs: pl.DataFrame) -> dict[str, Any]:
    """Return what `runs`, as `results.read` gives them, have in common, and in what they differ.

    `line` is that in short, for people, empty if nothing is known; `datasets` have `name` and the numbers of
    images `train`, `val` and `test` (null: not known); `models`, `optimizers`, `devices` are names; `epochs`
    and `lrs` (the peaks) rising numbers; `commits` those of the program when it trained, with `dirty`;
    `settings` have the value of each key that is the same in all runs, `varied` the values of the others.
    """
    rows = [_row(run) for run in runs.to_dicts()]
    known = [row for row in rows if row["config"]]
    same, varied = _settings([row["config"] for row in known])
    document = {
        "datasets": _datasets(known),
        "models": _unique(row["model"] for row in known),
        "optimizers": _unique(row["optimizer"] for row in known),
        "epochs": _numbers(row["epochs"] for row in known),
        "lrs": _numbers(row["lr"] for row in known),
        "devices": _unique(row["device"] for row in rows),
        "commits": _commits(rows),
        "settings": same,
        "varied": varied,
    }
    return {"line": _line(document), **document}


def _row(run: dict[str, Any]) -> dict[str, Any]:
    """Return what is shown of a run; what it did not record is None or empty."""
    with results.this_version(Path(run["folder"] or "") / "result.json"):
        config = json.loads(run.get("config") or "null") or {}
        model, dataset, optimizer, trainer = (
            config.get(name) or {} for name in ("model", "dataset", "optimizer", "trainer")
        )
        return {
            "folder": run["folder"],
            "complete": run.get("status") == "complete",
            "config": flat(config),
            "model": _model(model),
            "dataset": _dataset(dataset),
            "images_of": json.dumps({k: v for k, v in dataset.items() if k != "split_seed"}),
            "optimizer": _name(optimizer.get("kind", "")),
            "epochs": _number(trainer.get("epochs")),
            "lr": _number(optimizer.get("lr")),
            "device": _name(json.loads(run.get("numerics") or "{}").get("device", "")),
            "commit": run.get("commit"),
            "dirty": bool(run.get("dirty")),
        }


def _settings(
    configs: Sequence[dict[str, Any]],
) -> tuple[dict[str, Any], dict[str, list[Any]]]:
    """Return the values of the keys that are equal in all of `configs`, and all values of the others.

    Seeds and where files are kept do not count.
    """
    values: dict[str, dict[str, Any]] = {}
    number: dict[str, int] = {}
    for config in configs:
        for key, value in config.items():
            if key not in ("seed", "trainer.kind") and not key.startswith(NO_SETTINGS):
                values.setdefault(key, {})[json.dumps(value)] = value
                number[key] = number.get(key, 0) + 1
    same = {key for key, own in values.items() if len(own) == 1 and number[key] == len(configs)}
    return (
        {key: next(iter(own.values())) for key, own in values.items() if key in same},
        {key: [*own.values()] for key, own in values.items() if key not in same},
    )


def _datasets(known: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the data sets with their numbers of images, which one run of each configuration tells."""
    found: dict[str, dict[str, Any]] = {}
    for row in known:
        own = found.get(row["images_of"])
        if own is None or (own["train"] is None and row["complete"]):
            images = results.result(Path(row["folder"])).get("images") or {}
            counts = {name: images.get(name) for name in ("train", "val", "test")}
            found[row["images_of"]] = {"name": row["dataset"], **counts}
    every = [*found.values()]
    return [one for at, one in enumerate(every) if one not in every[:at]]


def _dataset(section: dict[str, Any]) -> str:
    kind = section.get("name") or section.get("kind", "")
    return PurePath(section["root"]).name if kind == "image_folder" else _name(str(kind))


def _model(section: dict[str, Any]) -> str:
    """Return a network's name as papers write it, with its width where that is not the usual one."""
    kind = str(section.get("kind", ""))
    if kind != "resnet":
        return str(section["arch"]) if kind == "torchvision" else kind
    width = section.get("width", _USUAL_WIDTH)
    named = f" (width {width})" if width != _USUAL_WIDTH else ""
    return f"ResNet-{section['depth']}{named}"


def _name(kind: str) -> str:
    return _NAMES.get(kind, kind)


def _commits(rows: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the commits that runs were trained with; `dirty` of one whose files were changed in any run."""
    found: dict[str, bool] = {}
    for row in rows:
        if commit := row["commit"]:
            found[commit] = found.get(commit, False) or row["dirty"]
    return [{"commit": commit, "dirty": dirty} for commit, dirty in found.items()]


def commits_text(commits: Sequence[dict[str, Any]]) -> str:
    """Return commits as a reader needs them: `06a92ddc0ffe, with uncommitted changes`."""
    return "; ".join(
        one["commit"] + ", with uncommitted changes" * bool(one["dirty"]) for one in commits
    )


def subject(trained: dict[str, Any]) -> str:
    """Return `ResNet-8 on digits`; empty if nothing is known."""
    names = _unique(one["name"] for one in trained.get("datasets", ()))
    parts = [either(trained.get("models", ()), "models"), either(names, "data sets")]
    return " on ".join(filter(None, parts))


def _line(trained: dict[str, Any]) -> str:
    epochs, lrs = _range(trained["epochs"]), _range(trained["lrs"])
    lr = f"peak LR {lrs}" if lrs else ""
    parts = [
        either(trained["models"], "models"),
        _datasets_text(trained["datasets"]),
        f"{epochs} epoch{'s' * (epochs != '1')}" if epochs else "",
        ", ".join(filter(None, [either(trained["optimizers"], "optimizers"), lr])),
        either(trained["devices"], "devices"),
    ]
    return " · ".join(filter(None, parts))


def _datasets_text(datasets: Sequence[dict[str, Any]]) -> str:
    """Return the names of data sets, of one or two with their numbers of images."""
    names = _unique(one["name"] for one in datasets)
    if len(names) > 2:
        return either(names, "data sets")
    texts = []
    for name in names:
        own = [one for one in datasets if one["name"] == name]
        train, val = (_numbers(one[images] for one in own) for images in ("train", "val"))
        counts = f", {_range(train)} train / {_range(val)} val" if train and val else ""
        texts.append(f"{name}{counts}")
    return " and ".join(texts)


def either(names: Sequence[str], what: str) -> str:
    """Return a few names as text, of more how many of `what` they are."""
    if len(names) > _MOST_NAMED:
        return f"{len(names)} {what}"
    return " and ".join(filter(None, [", ".join(names[:-1]), *names[-1:]]))


def _range(numbers: Sequence[float]) -> str:
    """Return rising numbers as text, of more than two the first and the last."""
    texts = [f"{number:,.10g}" for number in numbers]
    return " to ".join([texts[0], texts[-1]]) if len(texts) > 2 else " and ".join(texts)


def _number(value: Any) -> float | None:
    return None if value is None else float(value)


def _numbers(values: Iterable[float | None]) -> list[float]:
    return sorted({value for value in values if value is not None})


def _unique(names: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(filter(None, names)))
