"""What is compared of a source: factor, levels, seeds and cells from settings; what is asked for, in a line."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import polars as pl
import pytest

from harness.config.errors import ConfigError
from harness.reading.recorded import FINAL_VALUES, RUNS, Recorded, clean, unique_names
from harness.reading.recover import Asked, Question, recover

FACTOR = Asked(factor="t_mult", baseline="1", metric="val_acc")


def source(settings: Sequence[dict[str, Any]], *metrics: str, **columns: Any) -> Recorded:
    rows = [
        {"run": f"r{number}", "status": "complete", "error": None, "where": "", "settings": json.dumps(own)}
        for number, own in enumerate(settings)
    ]  # fmt: skip
    curves = pl.DataFrame({"run": range(len(rows)), "step": [9] * len(rows)}).with_columns(
        pl.col("run").cast(pl.UInt32), *(pl.lit(1.0).alias(one) for one in metrics or ("val_acc",))
    )
    return Recorded("test", pl.DataFrame(rows, schema=RUNS), curves)


def grid(*levels: Any, seeds: int = 3, **others: Sequence[Any]) -> list[dict[str, Any]]:
    """Every level with every seed, and with every value of one other key."""
    ((key, values),) = others.items() or [("epochs", [5])]
    return [
        {"t_mult": level, "seed": seed, key: value}
        for value in values
        for level in levels
        for seed in range(seeds)
    ]


def cells(found: Question) -> list[str]:
    return [*dict.fromkeys(found.cell(run) for run in found.runs)]


def test_pairs_are_runs_of_one_seed() -> None:
    found = recover(source(grid(1, 2)), FACTOR)
    assert (found.paired, found.baseline, found.treatments) == (True, "1", ("2",))
    assert [(run.level, run.seed) for run in found.runs] == [
        ("1", 0), ("1", 1), ("1", 2), ("2", 0), ("2", 1), ("2", 2),
    ]  # fmt: skip
    assert found.notes == []


def test_another_setting_makes_cells() -> None:
    found = recover(source(grid(1, 2, lr=[0.1, 0.2])), FACTOR)
    assert cells(found) == ["lr=0.1", "lr=0.2"]
    assert found.keys.others == ["lr"]


def test_cells_are_not_mixed_where_no_seed_repeats() -> None:
    runs = [own | {"seed": number} for number, own in enumerate(grid(1, 2, lr=[0.1, 0.2]))]
    found = recover(source(runs), FACTOR)
    assert cells(found) == ["lr=0.1", "lr=0.2"]
    assert not found.paired
    assert found.notes == ["no seed is in both of two arms of a cell: the runs are not paired"]


def test_what_goes_with_the_factor_makes_no_cell_and_is_named() -> None:
    runs = [own | {"warmup": 5 * own["t_mult"]} for own in grid(1, 2)]
    found = recover(source(runs), FACTOR)
    assert cells(found) == [""]
    assert found.keys.with_factor == {"warmup": "5 with 1; 10 with 2"}


def test_what_follows_from_factor_and_cell_makes_no_cell() -> None:
    runs = [
        own | {"restarts": own["epochs"] // own["t_mult"]} for own in grid(1, 2, epochs=[8, 20])
    ]
    found = recover(source(runs), FACTOR)
    assert cells(found) == ["epochs=8", "epochs=20"]
    assert found.keys.with_factor == {"restarts": "8, 20 with 1; 4, 10 with 2"}


def test_what_goes_with_the_seed_makes_no_cell() -> None:
    found = recover(source([own | {"split": own["seed"] + 7} for own in grid(1, 2)]), FACTOR)
    assert cells(found) == [""]
    assert found.keys.with_seed == ["split"]


@pytest.mark.parametrize(
    ("key", "values"),
    [("host", "ab"), ("output_dir", "uvwxyz"), ("comment", "uvwxyz"), ("trainer.gpus", "ab"),
     ("run.name", "ab"), ("tags", "ab"), ("run (column)", "uvwuvw")],
)  # fmt: skip
def test_names_and_places_make_no_cells(key: str, values: str) -> None:
    runs = [own | {key: values[at % len(values)]} for at, own in enumerate(grid(1, 2))]
    found = recover(source(runs), FACTOR)
    assert cells(found) == [""]
    assert found.keys.ignored == [key]


@pytest.mark.parametrize("key", ["model.name", "dataset.path", "optimizer.id_of"])
def test_names_of_models_and_data_do(key: str) -> None:
    found = recover(source([own | {key: name} for name in "ab" for own in grid(1, 2)]), FACTOR)
    assert cells(found) == [f"{key}=a", f"{key}=b"]


def test_a_cell_without_the_baseline_is_not_compared() -> None:
    runs = [*grid(1, 2, lr=[0.1]), *grid(2, lr=[0.3])]
    found = recover(source(runs), FACTOR)
    assert cells(found) == ["lr=0.1"]
    why = "no run of the baseline and of another level share its other settings"
    assert found.not_compared == {"r6": why, "r7": why, "r8": why}


def test_keys_that_set_nothing_more_apart_are_not_in_the_name_of_a_cell() -> None:
    runs = [own | {"steps": 100 * own["epochs"]} for own in grid(1, 2, epochs=[8, 20])]
    assert cells(recover(source(runs), FACTOR)) == ["epochs=8", "epochs=20"]


def test_runs_without_the_factor_are_named() -> None:
    found = recover(source([*grid(1, 2), {"seed": 5}]), FACTOR)
    assert found.not_compared == {"r6": "has no t_mult"}


def test_null_is_a_level() -> None:
    found = recover(source(grid(None, 2)), Asked("t_mult", "null", metric="val_acc"))
    assert (found.baseline, found.treatments) == ("null", ("2",))


def test_levels_are_equal_as_numbers() -> None:
    found = recover(source(grid(1, 1.0, "2", 2, seeds=1)), FACTOR)
    assert {run.level for run in found.runs} == {"1", "2"}


def test_true_is_written_as_python_does() -> None:
    asked = replace(FACTOR, baseline="True", where={"bn": "False"})
    found = recover(source(grid(True, False, bn=[True, False])), asked)
    assert (found.baseline, found.treatments, len(found.runs)) == ("true", ("false",), 6)
    found = recover(source(grid("True", "true")), asked := replace(FACTOR, baseline="True"))
    assert (found.baseline, found.treatments) == ("True", ("true",))
    assert "look alike are different ones: True, true" in found.notes[0]  # fmt: skip
    assert recover(source(grid("True", "maybe")), asked).notes == []


@pytest.mark.parametrize("other", ["One Cycle", "onecycle", "one cy\u00adcle", "one cyc\u200dle", "ｏｎｅ cycle"])  # fmt: skip
def test_levels_that_look_alike_get_a_note(other: str) -> None:
    found = recover(source(grid("one cycle", other)), replace(FACTOR, baseline="one cycle"))
    assert found.treatments == (other,)
    assert "levels that look alike are different ones" in found.notes[0]


def test_treatments_leave_other_levels_out() -> None:
    found = recover(source(grid(1, 2, 4)), Asked("t_mult", "1", ("4",), "val_acc"))
    assert found.treatments == ("4",)
    assert set(found.not_compared) == {"r3", "r4", "r5"}


def test_where_takes_a_part() -> None:
    asked = Asked("t_mult", "1", metric="val_acc", where={"lr": "0.1", "status": "complete"})
    found = recover(source(grid(1, 2, lr=[0.1, 0.2])), asked)
    assert [run.name for run in found.runs] == [f"r{number}" for number in range(6)]


@pytest.mark.parametrize(
    ("key", "value"), [("State", "FINISHED"), ("Status", "complete"), ("state", "Finished")]
)
def test_where_takes_states_by_the_header_of_others(key: str, value: str) -> None:
    assert len(recover(source(grid(1, 2)), replace(FACTOR, where={key: value})).runs) == 6


def test_the_one_setting_that_differs_is_the_factor() -> None:
    found = recover(source(grid(1, 2)), Asked(baseline="1"))
    assert (found.factor, found.inferred, found.metric) == ("t_mult", True, "val_acc")


def test_the_last_part_of_a_key_will_do() -> None:
    runs = [{"scheduler.t_mult": own["t_mult"], "seed": own["seed"]} for own in grid(1, 2)]
    assert recover(source(runs), FACTOR).factor == "scheduler.t_mult"


def test_several_last_parts_of_a_key_will_do() -> None:
    runs = [{"config.opt.name": own["t_mult"], "config.data.name": 1, "seed": own["seed"]} for own in grid(1, 2)]  # fmt: skip
    asked = Asked("opt.name", "1", metric="val.acc")
    found = recover(source(runs, "summary.val.acc", "summary.train.acc"), asked)
    assert (found.factor, found.metric) == ("config.opt.name", "summary.val.acc")


def test_seeds_that_are_no_numbers_are_numbered() -> None:
    found = recover(source([own | {"seed": f"s{own['seed']}"} for own in grid(1, 2)]), FACTOR)
    assert [run.seed for run in found.runs] == [0, 1, 2, 0, 1, 2]
    assert found.notes == [
        "seed is no whole number everywhere; seeds are numbered: 0 is s0, 1 is s1, 2 is s2"
    ]


def test_without_seeds_runs_are_not_paired() -> None:
    runs = [{"t_mult": own["t_mult"]} for own in grid(1, 2)]
    found = recover(source(runs), FACTOR)
    assert (found.paired, found.notes) == (False, ["the runs are not paired: no seed is known"])
    found = recover(source(grid(1, 2)), Asked("t_mult", "1", metric="val_acc", seed="none"))
    assert (found.paired, found.notes) == (False, ["the runs are not paired"])
    assert (found.keys.others, found.keys.ignored) == ([], [])


@pytest.mark.parametrize("key", ["fold", "trial", "rep", "repeat"])
def test_repeats_make_no_cells_where_no_pairs_are_asked_for(key: str) -> None:
    runs = [{"t_mult": own["t_mult"], key: own["seed"]} for own in grid(1, 2)]
    found = recover(source(runs), replace(FACTOR, seed="none"))
    assert (found.paired, cells(found), len(found.runs)) == (False, [""], 6)


def test_columns_of_a_table_of_final_values_are_results_where_they_seldom_repeat() -> None:
    runs = [own | {"val_acc": 90 + at, "loss": at / 7} for at, own in enumerate(grid(1, 2, lr=[0.1, 0.2]))]  # fmt: skip
    found = recover(source(runs, "val_acc", "loss", "lr", "t_mult", "seed"), FACTOR)
    assert cells(found) == ["lr=0.1", "lr=0.2"]


def test_settings_that_seldom_repeat_in_a_table_of_final_values_are_no_results() -> None:
    runs = [own | {"wd": at / 7, "val_acc": 90.5} for at, own in enumerate(grid(1, 2))]
    with pytest.raises(ConfigError, match="in all other settings: wd differ; --ignore KEY"):
        recover(source(runs, "val_acc", "wd"), FACTOR)


@pytest.mark.parametrize(
    ("cell", "where", "why"),
    [(5, {"state": "finished"}, "--where state=finished"),
     (7, {}, "no run of the baseline and of another level share its other settings")],
)  # fmt: skip
def test_runs_that_are_left_out_are_listed_with_their_status(
    cell: int, where: dict[str, str], why: str
) -> None:
    recorded = source([*grid(1, 2), {"t_mult": 2, "seed": 0, "epochs": cell}])
    runs = recorded.runs.with_columns(
        status=pl.when(pl.col("run") == "r6").then(pl.lit("crashed")).otherwise("status")
    )
    asked = Asked("t_mult", "1", metric="val_acc", where=where)
    found = recover(Recorded("test", runs, recorded.curves), asked)
    assert found.not_compared == {"r6": f"{why}, and it is crashed"}


def test_several_keys_make_pairs_together() -> None:
    runs = [own | {"rep": at % 2} for at, own in enumerate(grid(1, 2, seeds=2, lr=[1, 2]))]
    found = recover(source(runs), Asked("t_mult", "1", metric="val_acc", seed="seed,lr", ignore=("rep",)))  # fmt: skip
    assert [run.seed for run in found.runs] == [0, 2, 0, 2, 1, 3, 1, 3]
    assert cells(found) == [""]


@pytest.mark.parametrize(
    ("runs", "asked", "message"),
    [
        pytest.param(grid(1, 2), Asked(), "--baseline: say which t_mult the others are compared with: 1, 2",
                     id="no baseline"),
        pytest.param(grid(1, 2, lr=[0.1, 0.2]), Asked(baseline="1"),
                     r"--factor: say which setting is compared; these differ: t_mult \(1, 2\), lr \(0.1, 0.2\)",
                     id="no factor"),
        pytest.param(grid(1), Asked(), "--factor: no setting differs between the runs; found: t_mult, seed, epochs",
                     id="nothing differs"),
        pytest.param(grid(1, 2), Asked("t_mul", "1"), "--factor t_mul: is not in the source; did you mean t_mult",
                     id="misspelt factor"),
        pytest.param([own | {"a.t_mult": 1, "b.t_mult": 2} for own in grid(1, 2)], Asked("x.t_mult", "1"),
                     "--factor x.t_mult: is not in the source", id="unknown factor"),
        pytest.param([{"a.t": 1, "b.t": 2}], Asked("t", "1"), "--factor t: is the last part of a.t, b.t",
                     id="ambiguous factor"),
        pytest.param(grid(1, 2), Asked("t_mult", "3"), "--baseline 3: t_mult has the levels 1, 2", id="no such level"),
        pytest.param(grid(1, 2), Asked("t_mult", "1", ("7",)), "--treatment 7: t_mult has the levels", id="no such treatment"),
        pytest.param(grid(1, 2), Asked("t_mult", "1", ("1",)), "--treatment 1: is the baseline; choose from 1, 2", id="the baseline as treatment"),
        pytest.param(grid(1), FACTOR, "t_mult: every run that has it [(]3 of 3[)] has 1; there is nothing to compare", id="one level"),
        pytest.param([{"t_mult": 1, "seed": 0}, {"t_mult": 2}], FACTOR, "--seed seed: 1 of 2 runs have none, as r1",
                     id="a seed is missing"),
        pytest.param([*grid(1, 2), {"t_mult": 1, "seed": "nan"}, {"t_mult": 2, "seed": "nan"}], FACTOR,
                     "--seed seed: 2 of 8 runs have none, as r6", id="a seed is NaN"),
        pytest.param([*grid(1, 2), {"t_mult": "mean"}], FACTOR,
                     "--treatment LEVEL or --where KEY=VALUE takes a part; delete rows that are no runs, as means",
                     id="a row of means without a seed"),
        pytest.param([own | {"data_seed": 1, "torch.seed": 1} for own in [{"t_mult": 1}, {"t_mult": 2}]],
                     FACTOR, "--seed: say which key makes the pairs, or none; found: data_seed, torch.seed",
                     id="several seeds"),
        pytest.param([{"t_mult": 1, "fold": 1}, {"t_mult": 2, "fold": 1}], FACTOR,
                     "--seed: say which key makes the pairs, or none; found: fold", id="folds"),
        pytest.param([own | {"lr": number / 7} for number, own in enumerate(grid(1, 2))], FACTOR,
                     "no run of the baseline 1 agrees with one of another level in all other settings: lr differ; "
                     "--ignore KEY", id="a random search"),
        pytest.param(grid(1, 2), Asked("t_mult", "1", metric="acc"), "--metric acc: is not in the source", id="no metric"),
        pytest.param(grid(1, 2), Asked("t_mult", "1", where={"lr": "1"}), "--where lr: is not in the source", id="where: no key"),
        pytest.param(grid(1, 2), Asked("t_mult", "1", where={"run_status": "complete"}),
                     "--where run_status: is not in the source; did you mean status", id="where: misspelt status"),
        pytest.param(grid(1, 2), Asked("t_mult", "1", where={"seed": "9"}), "--where seed=9: no run of the source has it",
                     id="where: no run"),
        pytest.param([own | {"kappa": at % 2} for at, own in enumerate(grid(1, 2))], FACTOR,
                     "3 of 3 pairs of 2 and 1 do not agree in all other settings: kappa differ; --ignore KEY", id="a result by an unknown name"),
        pytest.param([*grid(1, 2), {"t_mult": 1, "seed": "mean"}], FACTOR, "r6 has the seed mean, and is no run", id="a row of means"),
        pytest.param(grid(1, 2), Asked("t_mult", "1", ignore=("x",)), "--ignore x: is not in the source", id="ignore"),
    ],
)  # fmt: skip
def test_what_cannot_be_recovered_is_asked_for(
    runs: list[dict[str, Any]], asked: Asked, message: str
) -> None:
    with pytest.raises(ConfigError, match=message) as raised:
        recover(source(runs), asked)
    assert "\n" not in str(raised.value)


def test_long_values_that_begin_alike_are_two() -> None:
    texts = {end: f"{'say it again ' * 40}{end}" for end in "AB"}
    found = recover(
        source(grid(*map(clean, texts.values()))), Asked("t_mult", texts["A"], metric="val_acc")
    )
    assert found.baseline == clean(texts["A"])
    assert [run.level for run in found.runs] == [clean(texts[end]) for end in "AAABBB"]
    assert len({run.level for run in found.runs}) == 2


def test_a_metric_that_was_read_as_text_says_so() -> None:
    note = "acc: is read as text, since cells such as 'oom' (row 3) are no numbers"
    recorded = replace(source(grid(1, 2)), notes=(note,))
    with pytest.raises(
        ConfigError, match=r"--metric acc: is read as text.*\(row 3\).*correct or empty"
    ):
        recover(recorded, Asked("t_mult", "1", metric="acc"))


def final_values(runs: Sequence[dict[str, Any]]) -> Recorded:
    """A table of final values without a column of the run; numbers are settings and metrics."""
    numbers = {
        key: [own[key] for own in runs]
        for key, one in runs[0].items()
        if isinstance(one, int | float)
    }
    found = source(runs, *numbers)
    found = replace(found, runs=found.runs.with_columns(pl.format("row {}", pl.int_range(pl.len()) + 1).alias("run")))  # fmt: skip
    columns = [pl.Series(name, values, pl.Float64) for name, values in numbers.items()]
    return replace(found, kind=f"CSV, {FINAL_VALUES}", curves=found.curves.with_columns(columns))


PARTS = {
    "splits": ("split", "train val test", True),
    "splits under another name": ("Evaluated on", "val test", True),
    "metrics": ("metric", "acc loss f1", True),
    "metrics of pandas' melt": ("variable", "val_acc val_loss", True),
    "splits of other words": ("split", "labelled-4k labelled-250", False),
    "data sets": ("dataset", "cifar10 cifar100", False),
    "tasks": ("task", "mnli rte", False),
    "losses": ("loss", "mse mae", False),
    "modes": ("bn_mode", "train eval", False),
    "sets to train on": ("training_set", "train train+val", False),
    "distances": ("metric", "cosine euclidean", False),
    "parts to train on": ("split", "train trainval", False),
    "layers that are trained": ("training", "head all", False),
}


@pytest.mark.parametrize("name", PARTS)
def test_rows_of_one_run_are_asked_about(name: str) -> None:
    """Unless --where says which, or such a column is the factor, or --ignore names it."""
    key, texts, asked = PARTS[name]
    values = texts.split()
    recorded = final_values([own | {"value": 1.5} for own in grid(1, 2, seeds=3, **{key: values})])
    whole = Asked("t_mult", "1", metric="value")
    if asked:
        found = f"{', '.join(values)}$"
        with pytest.raises(ConfigError, match=f"^--where {key}=VALUE: say which rows are judged, .* {found}"):  # fmt: skip
            recover(recorded, whole)
    else:
        assert cells(recover(recorded, whole)) == [f"{key}={value}" for value in values]
    assert cells(recover(recorded, replace(whole, where={key: values[-1]}))) == [""]
    assert recover(recorded, replace(whole, ignore=(key,))).keys.ignored == [key]
    assert recover(recorded, Asked(key, values[0], metric="value")).treatments == (*sorted(values[1:]),)  # fmt: skip


@pytest.mark.parametrize(
    ("metric", "column", "values", "means"),
    [
        ("val_acc", "val_acc_std", (0.3, 0.3), True), ("val_acc", "std", (0.3, 0.2), True),
        ("val_acc_mean", "val_acc_std", (0.3, 0.2), True), ("mean", "std", (0.3, 0.2), True),
        ("val_acc", "Std. dev.", (0.3, 0.2), True), ("val_acc", "accStderr", ("± 0.3", "± 0.2"), True),
        ("accuracy", "acc_std", (0.3, 0.3), True), ("acc", "std_over_seeds", (0.3, 0.3), True),
        ("acc", "acc_ci95", (0.3, 0.3), True), ("acc_mean", "acc_se", (0.3, 0.3), True), ("acc", "±", (0.3, 0.3), True),
        ("acc", "n_seeds", (5, 5), True), ("acc", "num runs", (5, 3), True), ("acc", "seeds", (5, 5), True),
        ("acc", "# runs", (5, 5), True),
        ("acc", "n_seeds", (1, 1), False), ("acc", "runs", (0, 1), False), ("acc", "init_std", (0.02, 0.02), False),
        ("acc", "std", (0.02, 0.02), False), ("acc", "dev_acc", (0.3, 0.3), False), ("acc", "n", (5, 5), False),
        ("acc", "standard", (True, True), False), ("loss", "acc_std", (0.3, 0.3), False),
    ],
)  # fmt: skip
def test_rows_that_are_means_of_runs_are_no_runs(
    metric: str, column: str, values: tuple[object, object], means: bool
) -> None:
    runs: list[dict[str, Any]] = [
        {"t_mult": level, metric: 90.0 + at, column: values[at]} for level in (1, 2) for at in (0, 1)
    ]  # fmt: skip
    asked = Asked("t_mult", "1", metric=metric)
    recover(replace(final_values(runs), kind="W&B's export of a table of runs"), asked)
    if means:
        with pytest.raises(ConfigError, match=f"--metric {metric}: the column '{re.escape(column)}' says that each row is a mean of"):  # fmt: skip
            recover(final_values(runs), asked)
        runs = [own | {"seed": at % 2} for at, own in enumerate(runs)]
    recover(final_values(runs), asked)


TEXT = "val/acc: is read as text, since cells such as '75.78*' (row 3) are no numbers"


@pytest.mark.parametrize(
    ("metric", "message"),
    [
        (None, re.escape(f"--metric {TEXT}; correct or empty them, or name another metric")),
        ("val/acc", re.escape(f"--metric {TEXT}; correct or empty them")),
        ("acc", "--metric acc: is the last part of train/acc, val/acc; give the whole name"),
        ("train/acc", None),
    ],
)
def test_a_metric_that_was_read_as_text_is_not_replaced_by_another(
    metric: str | None, message: str | None
) -> None:
    found = replace(source(grid(1, 2), "train/acc"), notes=(TEXT,))
    asked = Asked("t_mult", "1", metric=metric)
    if message is None:
        recover(found, asked)
        return
    with pytest.raises(ConfigError, match=f"^{message}$"):
        recover(found, asked)


def test_what_each_run_has_of_its_own_is_no_factor() -> None:
    runs = [own | {"sys/id": f"P-{at}"} for at, own in enumerate(grid(1, 2))]
    assert recover(source(runs), Asked(baseline="1", metric="val_acc")).factor == "t_mult"


def test_a_clock_is_no_metric_where_there_is_no_other() -> None:
    with pytest.raises(ConfigError, match="--metric: say which number is judged; found: epoch"):
        recover(source(grid(1, 2), "epoch"), Asked("t_mult", "1"))


METRICS = [
    ("optimizer,params.seed,params.accuracy_target,metrics.acc", "metrics.acc"),
    ("optimizer,seed,metrics/acc", "metrics/acc"),
    ("optimizer,seed,max_val_acc", "max_val_acc"),
    ("optimizer,seed,depth,max_val_acc", None),
    ("optimizer,seed,score,best_acc", None),
    ("optimizer,seed,train/loss,metrics/accuracy,val/loss", None),
    ("optimizer,seed,train_acc,train_loss,acc", "acc"),
    ("optimizer,seed,train_acc,train_loss,acc,val_acc", "val_acc"),
    ("optimizer,seed,train_acc", "train_acc"),
]


@pytest.mark.parametrize(("columns", "metric"), METRICS)
def test_no_setting_and_no_factor_is_the_metric(columns: str, metric: str | None) -> None:
    names = columns.split(",")
    settings = {"params.accuracy_target", "depth"} & {*names}
    runs = [
        {name: seed if "seed" in name else level if name in (*settings, "optimizer") else level + seed / 8 for name in names}
        for level in (1, 2) for seed in range(3)
    ]  # fmt: skip
    for factor in ("optimizer", None)[: 1 if settings or "max_" in columns else 2]:
        asked = Asked(factor, "1")
        if metric is None:
            with pytest.raises(
                ConfigError, match=r"^--metric: say which number is judged; found: "
            ):
                recover(final_values(runs), asked)
        else:
            assert recover(final_values(runs), asked).metric == metric


@pytest.mark.parametrize("name", ["steps", "epochs", "train_steps", "timesteps"])
def test_steps_of_a_table_without_a_run_are_asked_about(name: str) -> None:
    runs = [
        {"t_mult": level, "seed": seed, name: step, "acc": 80.5 + step + seed}
        for level in (1, 2) for seed in (0, 1) for step in (1, 2, 3)
    ]  # fmt: skip
    asked = Asked("t_mult", "1", metric="acc")
    with pytest.raises(ConfigError, match=f"^{name}: has several values with one t_mult and seed; if these are rows of one run, --map step={name} --map run=t_mult,seed;"):  # fmt: skip
        recover(final_values(runs), asked)
    one_each = [own for own in runs if own[name] == own["t_mult"]]
    assert recover(final_values(one_each), asked).keys.with_factor
    for curves in (
        replace(final_values(runs), kind="Lightning"),
        replace(final_values(runs), runs=source(runs).runs),
    ):
        assert recover(curves, asked).keys.cells == [name], "runs with a name of their own"


@pytest.mark.parametrize("name", ["elapsed", "Relative Time (Process)", "round", "epochs"])
@pytest.mark.parametrize(
    ("steps", "asked"), [([1.5, 2, 3, 5, 8], True), ([1.5, 2, 3, 5], False), ([1.5, 2, 5, 3, 8], False)], ids=str
)  # fmt: skip
def test_steps_that_rise_without_a_run_and_a_seed_are_asked_about(
    name: str, steps: list[float], asked: bool
) -> None:
    runs = [
        {"t_mult": level, name: step, "acc": 80.5 + level + step / 8}
        for level in (1, 2) for step in steps
    ]  # fmt: skip
    one = Asked("t_mult", "1", metric="acc")
    if asked:
        with pytest.raises(
            ConfigError, match=f"^{re.escape(name)}: rises from row to row of each t_mult; "
        ):
            recover(final_values(runs), one)
    for answer in ({"ignore": (name,)}, {"seed": name}) if asked else ({"ignore": ()},):
        recover(final_values(runs), replace(one, **answer))
    seeded = [own | {"seed": at // 2} for at, own in enumerate(runs)]
    recover(final_values(seeded), replace(one, seed="none"))


RISING = [
    "frames", "Step #", "train/epoch", "step_num", "global_iter", "TotalEnvInteracts", "timesteps_total",
    "num_env_steps_sampled", "samples_seen", "kimg", "ckpt", "comm_round", "progress", "time/total_timesteps", "itr",
]  # fmt: skip


def curves_of(name: str, run: str, steps: Sequence[int] = (1, 2, 3, 4, 5)) -> list[dict[str, Any]]:
    return [
        {"t_mult": level, run: number, name: step, "acc": 80.5 + step + number}
        for level in (1, 2) for number in range(3) for step in steps
    ]  # fmt: skip


@pytest.mark.parametrize("name", RISING)
def test_numbers_that_rise_in_rows_of_one_seed_are_asked_about(name: str) -> None:
    asked = Asked("t_mult", "1", metric="acc")
    message = f"{name}: rises from row to row, as the steps of runs do; if it counts them, --map step={name} --map run=t_mult,seed, "
    runs = curves_of(name, "seed")
    for rows in (runs, [one for one in runs if one[name] < 5 or one["seed"] < 2]):  # a crash
        found = final_values(rows)
        names = unique_names([f"{one['t_mult']}-{one['seed']}" for one in rows])
        for given in (found, replace(found, runs=found.runs.with_columns(run=pl.Series(names)))):
            with pytest.raises(ConfigError, match=f"^{re.escape(message)}"):
                recover(given, asked)
        named = replace(found, runs=source(rows).runs)
        assert recover(named, asked).keys.cells == [name], "each row has a name of its own"
    for steps in ((1, 2, 3, 4), (1, 5, 2, 4, 3)):
        grid_of = recover(final_values(curves_of(name, "seed", steps)), asked)
        assert grid_of.keys.cells == [name], "a setting"


@pytest.mark.parametrize("run", ["exp", "dropped"])
def test_numbers_that_rise_in_rows_without_a_seed_are_asked_about(run: str) -> None:
    runs = [{key: own for key, own in one.items() if key != "dropped"} for one in curves_of("comm_round", run)]  # fmt: skip
    named = "t_mult,exp" if run == "exp" else "COLUMN"
    with pytest.raises(ConfigError, match=f"^comm_round: rises .* --map step=comm_round --map run={named}, "):  # fmt: skip
        recover(final_values(runs), Asked("t_mult", "1", metric="acc"))


@pytest.mark.parametrize("name", ["depth", "warmup_ratio", "lr", "stepsize", "shots", "width", "batch_size", "train_samples", "max_tokens", "gpu_hours",
                                  "percent_pruned", "num_inference_steps", "decay_epoch"])  # fmt: skip
def test_settings_that_rise_are_settings(name: str) -> None:
    found = recover(final_values(curves_of(name, "seed")), Asked("t_mult", "1", metric="acc"))
    assert [*found.keys.cells, *found.keys.results] == [name]


@pytest.mark.parametrize(("base", "new", "asked"), [(8, 4, True), (8, 6, False), (5, 5, False)])  # fmt: skip
def test_a_yes_or_no_by_which_unpaired_runs_would_be_chosen_is_asked_about(
    base: int, new: int, asked: bool
) -> None:
    runs = [{"t_mult": level, "hit": int(at < yes), "val_acc": 80.5 + at} for level, yes in ((1, base), (2, new)) for at in range(10)]  # fmt: skip
    if asked:
        with pytest.raises(ConfigError, match=r"^hit: is more often so with some t_mult than with others, as a result is; --ignore hit"):  # fmt: skip
            recover(final_values(runs), FACTOR)
        assert not recover(final_values(runs), replace(FACTOR, ignore=("hit",))).keys.cells
    else:
        assert recover(final_values(runs), FACTOR).keys.cells == ["hit"]


@pytest.mark.parametrize("counts", [(3, 3), (2, 2), (4, 2)], ids=str)
def test_a_setting_with_the_name_of_a_result_is_known_by_its_grid(counts: tuple[int, int]) -> None:
    runs = [
        {"t_mult": level, "iou": iou, "val_acc": 80.5 + at}
        for level in (1, 2) for iou, count in zip((0.5, 0.75), counts, strict=True) for at in range(count)
    ]  # fmt: skip
    found = recover(final_values(runs), FACTOR).keys
    assert (found.cells, found.results) == ((["iou"], []) if counts == (3, 3) else ([], ["iou"]))
    seeded = [one | {"seed": seed} for one in runs for seed in (0, 1)]
    pairs = [*{(one["t_mult"], one["iou"], one["seed"]): one for one in seeded}.values()]
    assert recover(final_values(pairs), FACTOR).keys.cells == ["iou"]


def test_a_setting_of_splits_that_goes_with_the_run_is_one() -> None:
    texts = ("val_acc", "val_loss")
    runs = [own | {"monitor_metric": texts[own["seed"] % 2], "val_acc": 1} for own in grid(1, 2)]
    assert recover(final_values(runs), FACTOR).paired
    runs = [own | {"monitor_metric": texts[own["t_mult"] % 2], "val_acc": 1} for own in grid(1, 2)]
    assert recover(final_values(runs), FACTOR).keys.with_factor


def test_a_fold_beside_the_seed_is_asked_about() -> None:
    runs = grid(1, 2, fold=[0, 1])
    with pytest.raises(ConfigError, match=r"^fold: runs differ in it beside seed; --seed seed,fold makes pairs by both, --seed seed "):  # fmt: skip
        recover(source(runs), FACTOR)
    assert not recover(source(runs), replace(FACTOR, seed="seed,fold")).keys.cells
    assert cells(recover(source(runs), replace(FACTOR, seed="seed"))) == ["fold=0", "fold=1"]
    same = [own | {"fold": own["seed"]} for own in grid(1, 2)]
    assert recover(source(same), FACTOR).paired


@pytest.mark.parametrize("given", [None, "sched"])
def test_a_level_that_is_an_empty_cell_is_named(given: str | None) -> None:
    runs = [{"seed": seed, **own} for seed in range(3) for own in ({}, {"sched": "cosine"})]
    said = "sched: every run that has it .3 of 6. has cosine" if given else "--factor: no setting differs .*; some runs have no sched: fill in the cells of a level"  # fmt: skip
    with pytest.raises(ConfigError, match=f"^{said}"):
        recover(source(runs), Asked(given, "cosine", metric="val_acc"))


def test_the_columns_that_name_a_run_are_said_in_full() -> None:
    """With those of settings that set runs apart."""
    runs = [
        {"t_mult": level, "seed": seed, "data": data, "epochs": epochs, "acc": 80.5 + seed}
        for level in (1, 2) for seed in (0, 1) for data, most in (("cifar", 4), ("svhn", 2)) for epochs in range(most)
    ]  # fmt: skip
    asked = Asked("t_mult", "1", metric="acc")
    with pytest.raises(ConfigError, match="--map step=epochs --map run=t_mult,seed,data;"):
        recover(final_values(runs), asked)
    ended = [own for own in runs if own["epochs"] == (3 if own["data"] == "cifar" else 1)]
    assert cells(recover(final_values(ended), asked)) == ["data=cifar", "data=svhn"]


@pytest.mark.parametrize(("apart", "asked"), [(2, True), (1, False), (0, False)])
@pytest.mark.parametrize("levels", [(1, 2), (1, 2, 3)])
def test_pairs_that_settings_keep_apart(levels: tuple[int, ...], apart: int, asked: bool) -> None:
    """As a result by a name of its own does, in few digits: pairs would be chosen by their outcome."""
    runs = [own | {"kappa": int(own["t_mult"] == levels[-1] and own["seed"] < apart)} for own in grid(*levels, seeds=6)]  # fmt: skip
    said = (
        f"{apart} of 6 pairs of {levels[-1]} and 1 do not agree in all other settings: kappa differ"
    )
    if asked:
        with pytest.raises(ConfigError, match=f"^{said}; --ignore KEY"):
            recover(source(runs), FACTOR)
        assert recover(source(runs), replace(FACTOR, ignore=("kappa",))).paired
    else:
        assert (said in recover(source(runs), FACTOR).notes) == (apart == 1)


def test_a_level_of_other_cells_alone_is_not_asked_about() -> None:
    runs = [*grid(1, 2, lr=[0.1, 0.3]), *grid(3, lr=[0.2]), *grid(2, lr=[0.2])]
    found = recover(source(runs), FACTOR)
    assert (len(found.not_compared), len(found.runs)) == (6, 12)


ODD_TEXT = [
    ("a time", "duration", None), ("the name of a game", "map", None), ("a setting", "note2", None),
    ("another accuracy", "test_acc", "say which number is judged; found: val_acc, test_acc"),
    ("a loss beside an accuracy", "val_loss", None),
]  # fmt: skip


@pytest.mark.parametrize(("column", "message"), [case[1:] for case in ODD_TEXT], ids=[case[0] for case in ODD_TEXT])  # fmt: skip
def test_text_in_other_columns_stops_nothing(column: str, message: str | None) -> None:
    runs = [own | {column: "1:02" if own["seed"] else "58"} for own in grid(1, 2)]
    found = replace(source(runs), notes=(f"{column}: is read as text, since cells such as '1:02' (row 1) are no numbers",))  # fmt: skip
    asked = Asked("t_mult", "1")
    if message is not None:
        with pytest.raises(ConfigError, match=message):
            recover(found, asked)
    assert (
        recover(found, replace(asked, metric=None if message is None else "val_acc")).metric
        == "val_acc"
    )


def test_a_counter_with_a_word_makes_no_cells() -> None:
    runs = [
        own | {"best_epoch": "never" if at == 3 else str(at)} for at, own in enumerate(grid(1, 2))
    ]
    note = "best_epoch: is read as text, since cells such as 'never' (row 4) are no numbers"
    found = recover(replace(source(runs), notes=(note,)), FACTOR)
    assert (found.keys.cells, found.keys.results) == ([], ["best_epoch"])


def test_a_metric_that_is_a_setting_is_said_to_be_one() -> None:
    runs = [own | {"acc": 5, "note2": "x"} for own in grid(1, 2)]
    found = replace(source(runs, "loss"), notes=("note2: is read as text, since cells such as 'x' (row 1) are no numbers",))  # fmt: skip
    with pytest.raises(ConfigError, match="--metric acc: has one value in each run"):
        recover(found, Asked("t_mult", "1", metric="acc"))


def test_several_numbers_may_be_judged() -> None:
    with pytest.raises(
        ConfigError, match="--metric: say which number is judged; found: val_acc, val_top5"
    ):
        recover(source(grid(1, 2), "val_acc", "val_top5", "train_loss"), Asked("t_mult", "1"))
