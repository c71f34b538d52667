"""A study, as `conf/study/NAME.yaml` has it: a claim, the cells that it is judged in, further sweeps. Runs nothing."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from omegaconf import MISSING, OmegaConf

from harness.config import hydra_private
from harness.config.errors import ConfigError, nearest
from harness.config.fields import show
from harness.config.registry import group_files
from harness.config.schema import ClaimSettings

CONF = Path(__file__).resolve().parents[2] / "conf"
TABLES = ("differences", "arms", "tuning", "phase", "snapshots")
_UNTUNED: dict[str, Any] = {"tune": None, "grid": None}
_ALL_SEEDS: dict[str, Any] = {"until": None, "looks": None}


@dataclass
class Sweep:
    """What is trained and judged in each of the cells that `seeds` names."""

    claim: ClaimSettings = MISSING
    budget: float = MISSING  # epochs
    seeds: Any = MISSING  # pairs by cell; of a claim that goes on until decided, at most
    settings: list[str] = field(default_factory=list)  # further overrides
    tables: list[str] = field(default_factory=lambda: ["differences", "arms"])
    tuned: str | None = None  # the earlier sweep whose chosen values it takes

    @property
    def levels(self) -> list[str]:
        """Return those of the claim's factor, the baseline first."""
        return [str(self.claim.baseline), *(self.claim.treatments or [])]

    def overrides(self, cell: str) -> list[str]:
        """Return what it asks of train.py beside the cell's own settings."""
        given = {k: v for k, v in vars(self.claim).items() if v != _default_claim()[k]}
        factor = self.claim.factor
        if self.tuned:
            given["factor"], factor = "tuned", "+tuned"
        title = given.pop("title", None)
        claim = [f"claim.{key}={show(value)}" for key, value in given.items()]
        claim += [f"claim.title={hydra_private.quote(title)}"] if title else []
        return [
            f"{factor}={','.join(self.levels)}", f"seed=range(0,{self.seeds[cell]})",
            f"trainer.epochs={show(self.budget)}", *claim, *self.settings,
        ]  # fmt: skip

    def stages(self, cell: str) -> dict[str, list[str]]:
        """Return overrides for all that may be trained: "tuning", and "", which does not know what will be chosen."""
        untuned = replace(self, claim=replace(self.claim, **_UNTUNED), tuned=None)
        plain = untuned.overrides(cell)
        if not self.claim.tune:
            return {"": plain}
        keys = zip(self.claim.tuned_keys(), self.claim.grids(), strict=True)
        grid = [f"{key}={','.join(map(show, values))}" for key, values in keys]
        tuning = self.claim.seeds_to_tune()
        seeds = f"seed=range({tuning.start},{tuning.stop})"
        fixed = replace(untuned, claim=replace(untuned.claim, **_ALL_SEEDS)).overrides(cell)
        others = [word for word in fixed if not word.startswith("seed=")]
        return {"tuning": [*others, *grid, seeds], "": plain}


@dataclass
class Study(Sweep):
    """A study; its own claim is the first of `sweeps`, and judged over its cells together."""

    name: str = MISSING
    question: str = MISSING
    cells: dict[str, list[str]] = MISSING  # overrides
    arms: dict[str, list[str]] = field(default_factory=dict)  # overrides of arms beside conf/arm/
    sweeps: dict[str, Sweep] = field(default_factory=dict)
    launch: list[str] = field(default_factory=list)  # overrides: where and how runs are trained
    folder: str = ""  # studies/NAME

    def parts(self) -> Iterator[tuple[str, Sweep, str, Path]]:
        """Yield each sweep in each of its cells: name, sweep, cell, folder."""
        for name, sweep in self.sweeps.items():
            for cell in sweep.seeds:
                yield name, sweep, cell, Path(self.folder, cell, name)

    def command(self, sweep: Sweep, cell: str, folder: Path) -> list[str]:
        """Return the arguments of train.py for a sweep in a cell."""
        own = ["--config-dir", str(self.made_for(cell))] if self.arms or sweep.tuned else []
        words = [*self.launch, *self.cells[cell], *sweep.overrides(cell)]
        return [*own, "-m", f"hydra.sweep.dir={folder}", *hydra_private.last_given(words)]

    def made_for(self, cell: str) -> Path:
        """Return the folder of the arms that are made for a cell."""
        return Path(self.folder, cell, "conf")

    def fixed(self) -> dict[str, Any]:
        """Return what may not change under one name, by its key, as JSON gives it back."""
        found: dict[str, Any] = {"cells": self.cells, "arms": self.arms}
        for name, sweep in self.sweeps.items():
            begin = "" if name == "claim" else f"sweeps.{name}."
            own = {k: v for k, v in vars(sweep).items() if k not in ("claim", "tables")}
            found |= {f"{begin}{key}": value for key, value in own.items()}
            found[f"{begin}claim"] = {k: v for k, v in vars(sweep.claim).items() if k != "title"}
        return found


def write_choice(path: Path, overrides: Sequence[str]) -> None:
    """Write a file of a group of `conf/` that sets what `overrides`, each `KEY=VALUE`, do."""
    pairs = [word.partition("=") for word in overrides]
    chosen = [f"  - override /{key}: {value}" for key, _, value in pairs if key in group_files()]
    values = [f"{key}={value}" for key, _, value in pairs if key not in group_files()]
    head = ["# @package _global_", "defaults:", *chosen, "  - _self_", ""]
    content = OmegaConf.to_yaml(OmegaConf.from_dotlist(values)) if values else ""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(head) + content, encoding="utf-8")


def studies() -> dict[str, Path]:
    """Return the files of `conf/study/` by name."""
    return {path.stem: path for path in sorted((CONF / "study").glob("*.yaml"))}


def load(words: Sequence[str]) -> Study:
    """Return the study of `study=NAME KEY=VALUE …`. Raises `ConfigError`, and OmegaConf's errors."""
    if wrong := [word for word in words if "=" not in word]:
        raise ConfigError(f"{wrong[0]}: must be KEY=VALUE, as in study=quick")
    hydra_private.refuse_repeated(words, sweeps=False)
    name = dict(word.split("=", 1) for word in words).get("study", "")
    if name not in (files := studies()):
        raise ConfigError(f"study={name}: {nearest(name, [*files])}")
    changed = OmegaConf.from_dotlist([word for word in words if not word.startswith("study=")])
    given = OmegaConf.merge(OmegaConf.load(files[name]), changed, {"name": name})
    keys = _checked(Study, given)
    raw: Any = OmegaConf.to_container(given, resolve=False)
    own = {f.name: raw[f.name] for f in fields(Sweep) if f.name in raw}
    if "claim" in keys["sweeps"]:
        raise ConfigError("sweeps.claim: is what the study itself says; take another name")
    sweeps = {"claim": _sweep(own, keys["cells"])}
    for further, changes in raw.get("sweeps", {}).items():
        claim = own["claim"] | {"title": None} | changes.get("claim", {})
        try:
            sweeps[further] = _sweep(own | changes | {"claim": claim}, keys["cells"])
        except ConfigError as error:
            raise ConfigError(f"sweeps.{further}.{error}") from None
    keys["folder"] = keys["folder"] or f"studies/{name}"
    study = Study(**keys | vars(sweeps["claim"]) | {"sweeps": sweeps})
    _check(study)
    return study


def _checked(schema: type[Sweep], *given: Any) -> dict[str, Any]:
    keys: Any = OmegaConf.to_container(
        OmegaConf.merge(OmegaConf.structured(schema), *given), resolve=False
    )
    if missing := [key for key, value in keys.items() if value == MISSING]:
        raise ConfigError(f"{missing[0]}: has no value; a study needs one")
    return dict(keys)


def _sweep(given: Mapping[str, Any], cells: Mapping[str, Any]) -> Sweep:
    """Return a sweep of the file, with the claim's defaults. Raises `ConfigError`."""
    keys = _checked(Sweep, {"claim": _default_claim()}, given)
    claim, seeds = keys["claim"], keys["seeds"]
    by_cell = seeds if isinstance(seeds, dict) else dict.fromkeys(cells, seeds)
    if unknown := [cell for cell in by_cell if cell not in cells]:
        raise ConfigError(f"seeds.{unknown[0]}: {nearest(str(unknown[0]), [*cells])}")
    if not all(isinstance(pairs, int) and pairs > 0 for pairs in by_cell.values()):
        raise ConfigError(f"seeds={show(seeds)}: must be a number of pairs, or one for each cell")
    for key in ("factor", "baseline", "treatments"):
        if not claim[key]:
            raise ConfigError(f"claim.{key}: has no value; a study needs one")
    if claim["until"] and len({*by_cell.values()}) > 1:
        raise ConfigError(f"seeds={show(seeds)}: must be one number where claim.until=decided")
    if keys["tuned"]:
        claim |= {"tune": None, "grid": None}
    if wrong := [table for table in keys["tables"] if table not in TABLES]:
        raise ConfigError(f"tables={wrong[0]}: {nearest(wrong[0], TABLES)}")
    settings = ClaimSettings(**claim)
    settings.refuse_seeds_of_tuning(range(max(by_cell.values())))
    return Sweep(**keys | {"claim": settings, "seeds": by_cell})


def _default_claim() -> dict[str, Any]:
    values: Any = OmegaConf.to_container(OmegaConf.load(CONF / "claim/default.yaml"))
    del values["defaults"]
    return dict(values)


def _check(study: Study) -> None:
    """Raise `ConfigError` where the parts of a study do not fit each other."""
    named = {"cells": [*study.cells], "sweeps": [*study.sweeps], "arms": [*study.arms]}
    for key, names in named.items():
        for name in names:
            if not re.fullmatch(r"\w[\w.-]*", name) or name == "conf":
                raise ConfigError(
                    f"{key}.{name}: names a folder or a file; take letters, digits, - or _"
                )
    factors = {str(sweep.claim.factor) for sweep in study.sweeps.values()}
    if study.arms and "arm" not in factors:
        raise ConfigError(
            f"arms.{next(iter(study.arms))}: is of no use with claim.factor={' and '.join(factors)}; take "
            "claim.factor=arm, or leave arms out"
        )
    if taken := [arm for arm in study.arms if arm in group_files()["arm"]]:
        raise ConfigError(f"arms.{taken[0]}: conf/arm/ has one of that name; take another")
    earlier: dict[str, Sweep] = {}
    for name, sweep in study.sweeps.items():
        if sweep.tuned:
            tuned = earlier.get(sweep.tuned, sweep)
            known = {*sweep.levels} <= {*tuned.levels} and {*sweep.seeds} <= {*tuned.seeds}
            if not (tuned.claim.tune and known and sweep.claim.factor == "arm"):
                raise ConfigError(
                    f"sweeps.{name}.tuned={sweep.tuned}: must be an earlier sweep with claim.tune and "
                    "claim.factor=arm, in which all arms and cells of this one are"
                )
        earlier[name] = sweep
