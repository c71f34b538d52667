"""Arms that choose a value before the claim: their runs are a sweep of their own, in the folder `tuning`.

The rule is `harness/analysis/tuning.py`; docs/verdict.md says it and why.
"""

from __future__ import annotations

import sys
from itertools import product
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from harness.analysis import arms, measured, results, sweep_plan, tuning
from harness.analysis.scale import Scale
from harness.analysis.tuning import Choice, Value
from harness.config import measures
from harness.config.errors import ConfigError
from harness.config.fields import show
from harness.config.schema import FIRST_TUNING_SEED, ClaimSettings
from harness.files import LOCK_SECONDS, lock
from harness.sweeps import planning
from harness.sweeps.jobs import (
    PlannedSweep,
    Tuned,
    expand,
    key_of,
    plan_jobs,
    plan_sweep,
    without_seed,
)

Arm = tuple[str, ...]  # its overrides


def folder(config: DictConfig) -> Path:
    return Path(config.hydra.sweep.dir, "tuning")


def begin(config: DictConfig) -> dict[str, Any]:
    """Plan the runs of the grid that is given, and check the claim that comes after. Return the plan.

    A tuning of the same arms and values that is there already goes on, with what the grid was extended by.
    """
    claim = plan_sweep(config)
    settings = _settings(config)
    values = _grid(settings)
    planned = plan_jobs(config, _jobs(config, dict.fromkeys(_arms(config), values)))
    plan = planning.write_or_continue(folder(config), _document(config, planned), extended=True)
    purpose = f"they choose {' and '.join(settings.tuned_keys())} of each arm; then {claim.question.text()}"
    planning.announce(folder(config), planned, plan, purpose)
    return plan


def go_on(config: DictConfig) -> Tuned | None:
    """Return what the arms have chosen; None where the grid is extended first: then the plan has more runs.

    All runs of the plan have ended. Raises `ConfigError` for an arm that diverged at every value.
    """
    tried, grid = _tried(config), _grid(_settings(config))
    chosen: dict[Arm, Choice] = {}
    extended: dict[Arm, list[Value]] = {}
    for arm, accuracies in tried.items():
        choice = tuning.choose(accuracies, _scale(config).sign)
        if choice is None:
            raise ConfigError(
                f"claim.grid: {_names(config)[arm]} diverged at each of {', '.join(map(str, accuracies))}; "
                "take other values, in another folder (hydra.sweep.dir)"
            )
        chosen[arm] = choice
        further = tuning.extend(grid, [*accuracies], choice.best)
        if further and key_of(config, _job(config, arm, further, FIRST_TUNING_SEED)):
            extended[arm] = [*accuracies, further]
    for arm, own in extended.items():
        best = tuning.to_text(chosen[arm].best)
        print(
            f"{_names(config)[arm]}: {best} is best and at the edge; {own[-1]} is tried too",
            file=sys.stderr,
        )
    if extended:
        _extend_plan(config, {arm: extended.get(arm, [*own]) for arm, own in tried.items()})
        return None
    return _tuned(config, tried, chosen)


def _settings(config: DictConfig) -> ClaimSettings:
    found = OmegaConf.to_object(config.claim)
    assert isinstance(found, ClaimSettings)
    return found


def _scale(config: DictConfig) -> Scale:
    """Return the scale of what arms are tuned by: the claim's metric, on the validation images."""
    settings = _settings(config)
    measure = measures.of_claim(settings.metric, list(config.metrics))
    return Scale(settings.metric, measure.better, measure.unit, settings.margin).on_val


def _grid(settings: ClaimSettings) -> list[Value]:
    """Return the values to choose from, as text; of two keys all pairs."""
    texts = [[show(value) for value in grid] for grid in settings.grids()]
    return list(texts[0]) if len(texts) == 1 else list(product(*texts))


def _arms(config: DictConfig) -> list[Arm]:
    """Return the arms of the sweep. Raises `ConfigError` if one is given a value of a key that is tuned."""
    found = list(dict.fromkeys(without_seed(job["overrides"]) for job in expand(config)))
    keys = _settings(config).tuned_keys()
    for key in keys:
        if key == "seed" or key.startswith(arms.NO_SETTINGS):
            raise ConfigError(
                f"claim.tune={key}: changes nothing that an arm could choose; take another key"
            )
    for arm in found:
        if given := [word for word in arm if word.lstrip("+").partition("=")[0] in keys]:
            raise ConfigError(f"{given[0]}: is tuned by claim.tune; leave it out")
    return found


def _names(config: DictConfig) -> dict[Arm, str]:
    return {without_seed(job["overrides"]): job["arm"] for job in expand(config)}


def _job(config: DictConfig, arm: Arm, value: Value, seed: int) -> list[str]:
    return [*arm, *_overrides(config, value), f"seed={seed}"]


def _overrides(config: DictConfig, value: Value) -> list[str]:
    values = (value,) if isinstance(value, str) else value
    keys = _settings(config).tuned_keys()
    return [f"{key}={one}" for key, one in zip(keys, values, strict=True)]


def _jobs(config: DictConfig, grids: dict[Arm, list[Value]]) -> list[dict[str, Any]]:
    jobs = [
        _job(config, arm, value, seed)
        for arm, grid in grids.items()
        for value in grid
        for seed in _settings(config).seeds_to_tune()
    ]
    return arms.label_jobs(jobs)


def _document(config: DictConfig, planned: PlannedSweep) -> dict[str, Any]:
    reason = (
        f"these runs choose {' and '.join(_settings(config).tuned_keys())} for the arms of a claim"
    )
    return planning.new_document(config, planned) | {"no_claim": reason}


def _tried(config: DictConfig) -> dict[Arm, dict[Value, list[float | None]]]:
    """Return what each run came to (None of one that diverged) by arm and values, in planned order.

    Arms are those of the command as it is given now: runs are found in the plan by their configurations.
    """
    planned = sweep_plan.read_frozen(folder(config))["arms"]
    values = dict.fromkeys(_value(config, run) for run in planned)
    places = {
        key_of(config, _job(config, arm, value, seed)): (arm, value)
        for arm in _arms(config)
        for value in values
        for seed in _settings(config).seeds_to_tune()
    }
    found: dict[Arm, dict[Value, list[float | None]]] = {}
    runs = measured.of_metric(results.read(folder(config)), _scale(config).name)
    ended = runs.select("final", "status").iter_rows()
    for run, (final, status) in zip(planned, ended, strict=True):
        if run["key"] not in places:
            raise ConfigError(
                f"{folder(config) / 'plan.json'}: has runs that this command does not make any more; undo the "
                "change (a file of conf/, the environment), or take another folder (hydra.sweep.dir)"
            )
        arm, value = places[run["key"]]
        own = final if status == "complete" else None
        found.setdefault(arm, {}).setdefault(value, []).append(own)
    return found


def _value(config: DictConfig, run: dict[str, Any]) -> Value:
    given = arms.override_values(run["overrides"])
    values = tuple(given[key] for key in _settings(config).tuned_keys())
    return values[0] if len(values) == 1 else values


def _extend_plan(config: DictConfig, grids: dict[Arm, list[Value]]) -> None:
    """Add to the plan the runs of values that are not in it."""
    planned = plan_jobs(config, _jobs(config, grids))
    path = folder(config) / "plan.json"
    with lock(folder(config) / ".lock", LOCK_SECONDS):
        plan = sweep_plan.read_frozen(folder(config))
        known = {run["key"] for run in plan["arms"]}
        changed = plan | {"arms": list(plan["arms"])}
        document = _document(config, planned)
        for run in document["arms"]:
            if run["key"] not in known:
                number = len(changed["arms"])
                config_of = document["config"] | run.pop("differs")
                place = {"num": number, "folder": sweep_plan.free_folder(changed, str(number))}
                sweep_plan.add_run(changed, run | place | {"config": config_of})
        sweep_plan.write_plan(path, changed)


def _tuned(
    config: DictConfig,
    tried: dict[Arm, dict[Value, list[float | None]]],
    chosen: dict[Arm, Choice],
) -> Tuned:
    """Return the values of each arm: what it chose; of a baseline with `claim.tuned_over`, all that it tried."""
    settings = _settings(config)
    claim = plan_sweep(config)
    names = _names(config)
    for arm, choice in chosen.items():
        rule = f": the first within one standard error of the best, {tuning.to_text(choice.best)}"
        print(
            f"{names[arm]}: {' '.join(_overrides(config, choice.value))} is chosen{rule * (choice.value != choice.best)}",
            file=sys.stderr,
        )
    baselines = {
        without_seed(job["overrides"])
        for job in claim.jobs
        if settings.tuned_over and claim.question.is_baseline(job)
    }
    values = {
        arm: [
            _overrides(config, one) for one in (tried[arm] if arm in baselines else [choice.value])
        ]
        for arm, choice in chosen.items()
    }
    record = {
        "keys": settings.tuned_keys(),
        "grid": settings.grid,
        "seeds": [*_settings(config).seeds_to_tune()],
        "arms": [_choice(names[arm], choice, tried[arm]) for arm, choice in chosen.items()],
    }
    if not (scale := _scale(config)).is_accuracy:
        record |= {"metric": scale.metric, "better": scale.better}
    assert claim.question.claim
    return Tuned(
        claim.question.claim.factor, values, record | {"sha256": tuning.record_sha256(record)}
    )


def _choice(arm: str, choice: Choice, tried: dict[Value, list[float | None]]) -> dict[str, Any]:
    """Return an arm's choice as `plan.json` has it: what runs came to, null of those that diverged."""
    accuracies = {tuning.to_text(value): own for value, own in tried.items()}
    return {
        "arm": arm,
        "value": tuning.to_text(choice.value),
        "best": tuning.to_text(choice.best),
        "mean": choice.mean,
        "standard_error": choice.se,
        "edge": choice.edge,
        "tried": accuracies,
    }
