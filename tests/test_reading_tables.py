"""Tables in a file of somebody else's: what is read as a run, a setting and a metric, and what is refused."""

from __future__ import annotations

import csv
import gzip
import json
import math
import os
import random
import struct
import zipfile
from dataclasses import dataclass
from datetime import timedelta
from io import BytesIO, StringIO
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.config.errors import ConfigError
from harness.files import UnreadableError
from harness.reading import table_files
from harness.reading.recorded import RUNS, Recorded, clean
from harness.reading.tables import read

LONG = """\
run,scheduler.t_mult,seed,step,lr,val/acc,phase,status
b,2,7,1,0.1,50.5,warm,running
a,1,7,1,0.1,49.0,warm,running
b,2,7,2,0.05,60.25,main,finished
a,1,7,2,0.1,,main,crashed
"""
RUNS_CSV = """\
"Name","State","Notes","User","Tags","Created","Runtime","Sweep","ID","scheduler.t_mult","seed","val/acc","_step"
"swift-sun-2","finished","-","me","","2026-01-02T03:04:05.000Z","61","s1","x1","2","0","93.5","900"
"swift-sun-2","crashed","-","me","","2026-01-02T03:04:05.000Z","12","s1","x2","1","0","NaN","100"
"calm-sea-1","running","","me","a, b","2026-01-02T03:04:05.000Z","12","","x3","1","1","","100"
"""
CHART = """\
"Step","t_mult=2, seed=3 - val/acc","t_mult=2, seed=3 - val/acc__MIN","t_mult=2, seed=3 - val/acc__MAX","b - c - val/acc","b - c - val/acc__MIN","b - c - val/acc__MAX"
"0","50.5","50.5","50.5","","",""
"10","60.5","60.5","60.5","51.25","51.25","51.25"
"20","","","","NaN","NaN","NaN"
"""
PASTED = """\
We ran this:

| t_mult | seed | acc |
|-------:|:----:|-----|
| 1 | 0 | **93.1** |
| 2 | 0 | `94.0` |

Thanks!
"""


def write(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def settings(found: Recorded) -> list[dict[str, Any]]:
    assert dict(found.runs.schema) == RUNS
    return [json.loads(row) for row in found.runs["settings"]]


def curves(found: Recorded) -> list[tuple[Any, ...]]:
    assert list(found.curves.schema.values())[:2] == [pl.UInt32, pl.Int64]
    assert set(found.curves.dtypes[2:]) <= {pl.Float64}
    return found.curves.rows()


def parquet(frame: pl.DataFrame) -> bytes:
    buffer = BytesIO()
    frame.write_parquet(buffer)
    return buffer.getvalue()


def test_a_row_a_recorded_step(tmp_path: Path) -> None:
    found = read(write(tmp_path, "a.csv", LONG), {})
    assert found.kind == "CSV, a row a recorded step"
    assert found.runs["run"].to_list() == ["b", "a"]
    assert found.runs["status"].to_list() == ["complete", "crashed"]
    assert settings(found) == [{"scheduler.t_mult": 2, "seed": 7}, {"scheduler.t_mult": 1, "seed": 7}]  # fmt: skip
    assert found.metrics == ["lr", "val/acc"]
    assert curves(found) == [
        (0, 1, 0.1, 50.5),
        (0, 2, 0.05, 60.25),
        (1, 1, 0.1, 49.0),
        (1, 2, 0.1, None),
    ]
    assert found.notes == ("left out, as they vary within a run and are no numbers: phase",)


def test_the_same_table_in_other_formats(tmp_path: Path) -> None:
    expected = read(write(tmp_path, "a.csv", LONG), {})
    rows = list(csv.reader(StringIO(LONG)))
    pipes = "\n".join("| " + " | ".join(row) + " |" for row in [rows[0], ["---"] * 8, *rows[1:]])
    objects = [dict(zip(rows[0], row, strict=True)) for row in rows[1:]]
    frame = pl.read_csv(StringIO(LONG))
    contents: dict[str, str | bytes] = {
        "tab.tsv": LONG.replace(",", "\t"),
        "semicolon.csv": LONG.replace(",", ";"),
        "crlf.csv": LONG.replace("\n", "\r\n"),
        "bom.csv": b"\xef\xbb\xbf" + LONG.encode(),
        "quoted.csv": '"' + LONG.strip().replace(",", '","').replace("\n", '"\n"') + '"\n',
        "spaces.csv": LONG.replace(",", ",  "),
        "blank.csv": LONG.replace("\n", "\n\n"),
        "pipes.md": pipes,
        "objects.jsonl": "\n".join(json.dumps(row) for row in objects),
        "array.json": json.dumps(objects),
        "indented.json": json.dumps(objects, indent=2),
        "excel.csv": "\ufeffsep=;\r\n" + LONG.replace(",", ";").replace("\n", "\r\n"),
        "pipe.csv": "sep=|\n" + LONG.replace(",", "|"),
        "objects.txt": "\n\n".join(json.dumps(row) for row in objects),
        "table.parquet": parquet(frame),
        "table.bin": parquet(frame),
    }
    for name, content in contents.items():
        found = read(write(tmp_path, name, content), {})
        assert found.runs.drop("where").equals(expected.runs.drop("where")), name
        assert found.curves.equals(expected.curves), name
        assert found.notes == expected.notes, name


def test_final_values_are_settings_and_metrics(tmp_path: Path) -> None:
    text = "arm,seed,lr,nesterov,day,acc\ncosine,0,0.1,True,2026-01-02,93.5\nflat,18446744073709551615,0.1,false,,nan\n"
    found = read(write(tmp_path, "a.csv", text), {})
    assert found.kind == "CSV, a row of final values a run"
    assert found.runs["run"].to_list() == ["row 1", "row 2"]
    assert found.runs["status"].to_list() == [None, None]
    assert settings(found) == [
        {"arm": "cosine", "seed": 0, "lr": 0.1, "nesterov": True, "day": "2026-01-02", "acc": 93.5},
        {"arm": "flat", "seed": 2**64 - 1, "lr": 0.1, "nesterov": False, "acc": "nan"},
    ]
    assert found.metrics == ["lr", "acc"]
    assert found.curves["step"].to_list() == [None, None]
    assert found.curves["acc"][0] == 93.5
    assert math.isnan(found.curves["acc"][1])


def test_a_pasted_table(tmp_path: Path) -> None:
    found = read(write(tmp_path, "issue.md", PASTED), {})
    assert found.kind == "Markdown, a row of final values a run"
    assert settings(found) == [{"t_mult": 1, "seed": 0, "acc": 93.1}, {"t_mult": 2, "seed": 0, "acc": 94.0}]  # fmt: skip
    assert found.metrics == ["t_mult", "acc"]


PANDAS = """\
       factor  seed    acc
0           a     0  93.10
1   one cycle     0  94.00
"""
PASTED_AS = {
    "pandas": (PANDAS, "1 column(s) without a name are left out"),
    "pandas without an index": ("   factor  seed   acc\n        a     0 93.10\n  b_cycle     0 94.00\n", ""),
    "pandas in a text": (f"\n{PANDAS}\n", "1 column(s) without a name are left out"),
    "aligned to the left": ("factor     seed   acc\na          0      93.10\none cycle  0      94.00\n", ""),
    "tabulate": ("factor       seed    acc\n---------  ------  -----\na               0  93.10\none cycle       0  94.00\n", ""),
    "reStructuredText": ("=========  ====  =====\nfactor     seed  acc\n=========  ====  =====\na          0     93.10\none cycle  0     94.00\n=========  ====  =====\n", ""),
    "Markdown without outer pipes": ("We ran:\n\nfactor | seed | acc\n:--- | --- | ---:\na | 0 | **93.10**\none cycle | 0 | 94.00\n\nThanks!\n", ""),
    "psql": (" factor    | seed | acc \n-----------+------+-------\n a         |    0 | 93.10\n one cycle |    0 | 94.00\n(2 rows)\n", ""),
    "MySQL": ("+--------+------+-------+\n| factor | seed | acc   |\n+--------+------+-------+\n| a      |    0 | 93.10 |\n| cycle  |    0 | 94.00 |\n+--------+------+-------+\n", ""),
    "a grid": ("+--------+------+-------+\n| factor | seed | acc   |\n+========+======+=======+\n| a      |    0 | 93.10 |\n+--------+------+-------+\n| cycle  |    0 | 94.00 |\n+--------+------+-------+\n", ""),
}  # fmt: skip


@pytest.mark.parametrize("ending", ["csv", "md", "txt"])
@pytest.mark.parametrize("name", PASTED_AS)
def test_tables_as_programs_print_them(tmp_path: Path, name: str, ending: str) -> None:
    text, note = PASTED_AS[name]
    found = read(write(tmp_path, f"a.{ending}", text), {})
    a, other = settings(found)
    assert a == {"factor": "a", "seed": 0, "acc": 93.1}
    assert (other["factor"][-5:], other["acc"]) == ("cycle", 94)
    assert found.notes == ((note,) if note else ())


def test_marks_of_markdown_are_no_part_of_a_cell(tmp_path: Path) -> None:
    cells = ["**1**", "`1`", "_1_", "*1*", "__1__"]
    text = "| t | acc |\n|---|---|\n" + "".join(
        f"| {at} | {one} |\n" for at, one in enumerate(cells)
    )
    found = read(write(tmp_path, "a.md", text), {})
    assert found.curves["acc"].to_list() == [1] * 5


def test_nested_objects_have_full_keys(tmp_path: Path) -> None:
    rows = [
        {"trial": n, "config": {"lr": 0.1, "optimizer": {"betas": [0.9, 0.99]}}, "acc": float(n)}
        for n in (1, 2)
    ]
    rows[1]["late"] = 3
    found = read(write(tmp_path, "a.jsonl", "\n".join(map(json.dumps, rows))), {})
    assert found.runs["run"].to_list() == ["1", "2"]
    assert settings(found)[0] == {"config.lr": 0.1, "config.optimizer.betas": "[0.9, 0.99]", "acc": 1}  # fmt: skip
    assert found.metrics == ["config.lr", "acc", "late"]


def test_names_and_cells_may_have_half_of_a_character(tmp_path: Path) -> None:
    rows = [{"arm\ud800": f"{arm}\ud800", "acc": 1.0} for arm in "ab"]
    found = read(write(tmp_path, "a.jsonl", "\n".join(map(json.dumps, rows))), {})
    ((key, level), _), _ = (one.items() for one in settings(found))
    assert (key, level) == ("arm\\ud800", "a\\ud800")


def test_wandb_exports_a_table_of_runs(tmp_path: Path) -> None:
    found = read(write(tmp_path, "wandb_export.csv", RUNS_CSV), {})
    assert found.kind == "W&B's export of a table of runs"
    assert found.runs["run"].to_list() == ["swift-sun-2", "swift-sun-2 (2)", "calm-sea-1"]
    assert found.runs["status"].to_list() == ["complete", "crashed", "running"]
    assert settings(found)[1] == {
        "Name": "swift-sun-2", "Sweep": "s1", "scheduler.t_mult": 1, "seed": 0, "val/acc": "nan"
    }  # fmt: skip
    assert found.metrics == ["scheduler.t_mult", "val/acc"]
    assert found.curves["val/acc"].is_nan().to_list() == [False, True, None]


REPEATED = {
    "W&B's IDs": (RUNS_CSV + "".join(RUNS_CSV.splitlines(True)[1:3]), 3, "2 rows with the ID and all cells of an earlier one left out: x1, x2"),
    "a run_id": ("run_id,arm,acc\nr1,a,5\nr2,b,6\nr2,b,6\n", 2, "1 row with the run_id and all"),
    "an id in a group": ("sys/id,arm,acc\nr1,a,5\nr2,b,6\nr2,b,6\n", 2, "1 row with the sys/id and all"),
    "an id of items": ("id,arm,right\n1,a,1\n1,a,1\n1,b,1\n1,b,0\n", 4, ""),
    "no id": ("arm,acc\na,5\na,5\nb,6\n", 3, ""),
    "without an ID": ("Name,State,Created,ID,arm,acc\nr,finished,,,a,5\nr,finished,,,a,5\ns,finished,,x,b,6\n", 3, ""),
}  # fmt: skip


@pytest.mark.parametrize("name", REPEATED)
def test_rows_of_one_id_count_once(tmp_path: Path, name: str) -> None:
    text, runs, note = REPEATED[name]
    found = read(write(tmp_path, "a.csv", text), {})
    assert len(found.runs) == len(found.curves) == runs
    assert note in "\n".join(found.notes)
    assert bool(found.notes) == bool(note)


def test_wandb_exports_a_chart(tmp_path: Path) -> None:
    found = read(write(tmp_path, "wandb_chart.csv", CHART), {})
    assert found.kind == "W&B's export of a chart"
    assert found.runs["run"].to_list() == ["t_mult=2, seed=3", "b - c"]
    assert settings(found) == [{"t_mult": 2, "seed": 3}, {}]
    assert curves(found)[:3] == [(0, 0, 50.5), (0, 10, 60.5), (1, 10, 51.25)]
    assert len(found.curves) == 4
    assert found.curves["step"][3] == 20
    assert math.isnan(found.curves["val/acc"][3])
    assert "samples long runs" in found.notes[0]


def test_many_steps_of_an_epoch_in_a_chart_are_no_mean(tmp_path: Path) -> None:
    text = '"epoch","a - _step","a - _step__MIN","a - _step__MAX","a - acc","a - acc__MIN","a - acc__MAX"\n1,9,1,9,50,50,50\n'
    found = read(write(tmp_path, "a.csv", text), {})
    assert found.curves.to_dicts() == [{"run": 0, "step": 1, "_step": 9.0, "acc": 50.0}]


def test_a_chart_over_time_has_the_rows_of_each_run_as_steps(tmp_path: Path) -> None:
    text = '"Relative Time (Process)","a - acc","b - acc"\n1.5,50,\n1.75,,60\n2.5,51,\n2.75,,61\n'
    found = read(write(tmp_path, "a.csv", text), {})
    assert curves(found) == [(0, 1, 50), (0, 2, 51), (1, 1, 60), (1, 2, 61)]
    assert "has fractions, so its different values are numbered as steps, in each run" in found.notes[1]  # fmt: skip


def test_a_chart_over_epochs_has_one_numbering(tmp_path: Path) -> None:
    text = '"epoch","a - acc","b - acc"\n0.5,50,\n1,51,60\n1.5,52,\n2,53,61\n'
    found = read(write(tmp_path, "a.csv", text), {})
    assert curves(found) == [(0, 1, 50), (0, 2, 51), (0, 3, 52), (0, 4, 53), (1, 2, 60), (1, 4, 61)]


def test_times_as_steps_are_numbered_in_each_run(tmp_path: Path) -> None:
    text = "run,time,acc\na,0.5,1\nb,0.75,1\na,1.5,2\nb,1.75,2\nb,2.75,3\n"
    found = read(write(tmp_path, "a.csv", text), {"step": "time"})
    assert found.curves["step"].to_list() == [1, 2, 1, 2, 3]


def test_steps_of_a_schedule_are_settings_where_others_are_the_step(tmp_path: Path) -> None:
    text = "Name,State,Created,warmup_steps,warmup_epochs,grad_acc_steps,_step,total_steps,acc\na,finished,,1000,5,2,499,9,1\nb,finished,,0,0,4,499,9,2\n"
    found = read(write(tmp_path, "a.csv", text), {})
    assert [{*one} for one in settings(found)] == [{"warmup_steps", "warmup_epochs", "grad_acc_steps", "acc"}] * 2  # fmt: skip


@pytest.mark.parametrize(
    ("cells", "states"),
    [
        (("OUT_OF_MEMORY", "x"), ["out_of_memory", "x"]), (("NaN loss", "x"), ["nan loss", "x"]),
        (("exit 1", "x"), ["exit 1", "x"]), (("early_stopped", "x"), ["early_stopped", "x"]), (("odd", ""), ["odd", None]),
        (("pixels", "vector"), None), (("True", "False"), None), (("finished", "vector"), ["complete", "vector"]),
        (("KILLED", ""), ["killed", None]),
    ],
    ids=str,
)  # fmt: skip
def test_a_column_is_the_status_if_it_has_words_of_states(
    tmp_path: Path, cells: tuple[str, str], states: list[str | None] | None
) -> None:
    found = read(write(tmp_path, "a.csv", "state,seed,acc\n{},0,5\n{},0,6\n".format(*cells)), {})
    assert found.runs["status"].to_list() == (states or [None, None])
    assert ("state" in settings(found)[0]) == (states is None)
    mapped = read(tmp_path / "a.csv", {"status": "state"})
    assert mapped.runs["status"][0] == ("complete" if cells[0] == "finished" else cells[0].lower())


ENDED = {
    "the last part of a name": ("sys/state\nInactive\nActive\nx", ["complete", "active", "x"]),
    "after a point": ("info.status\nCOMPLETED\nFAILED\n", ["complete", "failed", None]),
    "the whole name first": ("tags.status,State\nfailed,done\nok,killed\n,ok", ["complete", "killed", "complete"]),
    "a setting, and a status": ("state,tags.state\npixels,done\nvector,killed\nvector,ok", ["complete", "killed", "complete"]),
    "empty cells of a last part": ("env.state\npixels\n\nvector", [None] * 3),
    "a flag": ("sys/failed\nFalse\nTrue\n", ["complete", "failed", None]),
    "numbers as a flag": ("has_crashed\n0\n1\n", ["complete", "crashed", None]),
    "a flag of a good end": ("is_done\nTrue\nFalse\n", ["complete", "unfinished", None]),
    "exit codes": ("Exit code\n0\n137\n", ["complete", "exit code 137", None]),
    "a flag against a good state": ("state,failed\nInactive,False\nInactive,True\nkilled,False", ["complete", "failed", "killed"]),
    "a bad state and a flag": ("status,exit_code\npreempted,1\n,0\nTERMINATED,1", ["preempted", "complete", "exit code 1"]),
    "a flag of a good end that nobody set": ("done\nFalse\nFalse\nFalse", [None] * 3),
    "a flag that is false beside a good state": ("State,done\nfinished,False\nfinished,True\ncrashed,True", ["complete", "complete", "crashed"]),
    "counts": ("failed\n3\n0\n1", [None] * 3),
    "other words": ("done\nyes\nno\nyes", [None] * 3),
    "all terminated": ("status\nTERMINATED\nERROR\nTERMINATED", ["complete", "error", "complete"]),
    "terminated beside a word for a good end": ("status\nterminated\nfinished\nterminated", ["terminated", "complete", "terminated"]),
    "published": ("status\npublished\ncompleted\nrunning", ["complete", "complete", "running"]),
}  # fmt: skip


@pytest.mark.parametrize("name", ENDED)
def test_columns_under_other_names_say_how_runs_ended(tmp_path: Path, name: str) -> None:
    text, states = ENDED[name]
    head, *cells = text.split("\n")
    rows = "".join(f"{seed},{own},5\n" for seed, own in enumerate(cells))
    found = read(write(tmp_path, "a.csv", f"seed,{head},acc\n{rows}"), {})
    assert found.runs["status"].to_list() == states
    last = head.split(",")[-1]
    assert (last in settings(found)[0]) == (states == [None] * 3)
    assert last not in found.metrics or states == [None] * 3
    assert any("terminated is read as ended well" in one for one in found.notes) == (name == "all terminated")  # fmt: skip


@pytest.mark.parametrize("asked", ["failed", "sys/failed"])
def test_a_flag_that_is_asked_for_is_a_number(tmp_path: Path, asked: str) -> None:
    path = write(tmp_path, "a.csv", "seed,state,sys/failed,acc\n0,done,0,5\n1,done,1,5\n")
    found = read(path, {}, [asked])
    assert found.runs["status"].to_list() == ["complete", "complete"]
    assert found.curves["sys/failed"].to_list() == [0, 1]
    assert read(path, {}, ["state"]).runs["status"].to_list() == ["complete", "failed"]


@pytest.mark.parametrize(
    ("flags", "states"),
    [("FFTT", ["complete", "failed"]), ("FTFF", [None, None])],
    ids=["one value a run", "of single steps"],
)
def test_a_flag_of_a_long_table_has_one_value_a_run(
    tmp_path: Path, flags: str, states: list[str | None]
) -> None:
    rows = [f"{'ab'[at // 2]},{at % 2},{flag == 'T'},{at}\n" for at, flag in enumerate(flags)]
    found = read(write(tmp_path, "a.csv", "run,step,failed,acc\n" + "".join(rows)), {})
    assert found.runs["status"].to_list() == states


def test_a_flag_is_a_metric_where_no_other_result_is_known(tmp_path: Path) -> None:
    path = write(tmp_path, "a.csv", "arm,item,failed\na,1,0\nb,1,1\n")
    assert read(path, {}).metrics == ["item", "failed"]


def test_a_flag_is_mapped_to_the_status(tmp_path: Path) -> None:
    path = write(tmp_path, "a.csv", "arm,failed,acc\na,False,5\nb,True,6\n")
    assert read(path, {"status": "failed"}).runs["status"].to_list() == ["complete", "failed"]


MERGED = {
    "data sets": ("dataset,method", "c10,a ,b ,a ,b c100,a ,b ,a ,b", "dataset"),
    "methods beside a seed": ("method,seed", "a,0 ,1 ,2 b,0 ,1 ,2", "method"),
    "methods of other numbers of seeds": ("method,seed", "a,0 ,1 ,2 b,0 ,1", "method"),
    "numbers": ("t_mult,fold", "1,0 ,1 ,2 2,0 ,1 ,2", "t_mult"),
    "in two columns": ("dataset,method,seed", "c10,a,0 ,,1 ,b,0 ,,1 c100,a,0 ,,1 ,b,0 ,,1", "dataset"),
    "one left of two columns": ("dataset,method,seed", "c10,a,0 ,a,1 ,b,0 ,b,1 c100,a,0 ,a,1 ,b,0 ,b,1", "dataset"),
    "alike in two columns": ("method,width,seed", "a,1,0 ,,1 b,2,0 ,,1 c,1,0 ,,1", "method"),
    "a setting for another": ("t_mult,gamma", "2, ,1 4, ,1 2, ,2", None),
    "of one arm": ("arm,t_mult", "a,2 b, a,4 b, a,2 b,", None),
    "of one arm, in words": ("arm,mode", "a,up b, a,down b, a,up b,", None),
    "of two arms": ("arm,mode", "a,up b,down c, c, a,up b,down c, c,", None),
    "not in later runs": ("mode,arm", "up,a up,b down,a down,b ,a ,b", None),
    "one value": ("mode,arm", "up,a ,b ,b ,a", None),
    "a value again": ("mode,arm", "up,a ,b up,b ,a down,a ,b", None),
    "the first row is empty": ("mode,arm", ",a up,b ,b ,a down,a ,b", None),
    "numbers here and there": ("dropout,arm", "0.1,a ,b 0.2,b ,a ,a 0.3,b ,a ,b", None),
    "remarks": ("remark,arm", "odd,a ,b ,a ,b ,a ,b again,a ,b", None),
    "a result": ("loss,arm", "1.5,a ,b 2.5,a ,b 1.7,b ,a", None),
}  # fmt: skip


@pytest.mark.parametrize("name", MERGED)
def test_merged_cells_are_asked_about(tmp_path: Path, name: str) -> None:
    head, text, column = MERGED[name]
    rows = "".join(f"{row},{70 + at}\n" for at, row in enumerate(text.split(" ")))
    path = write(tmp_path, "a.csv", f"{head},acc\n{rows}")
    if column is None:
        assert len(read(path, {}).runs) == len(text.split(" "))
        return
    with pytest.raises(
        ConfigError,
        match=rf"the column '{column}' has values in .* \(rows 1, .*; fill in the cells",
    ):
        read(path, {})


@pytest.mark.parametrize(
    ("name", "cells", "noted"),
    [
        ("val_acc", ("tensor(76.1)", "tensor(75.9)", "tensor(76.3)"), True),
        ("val_acc", ("[76.1]", "[75.9]", "[76.3]"), True), ("val_acc", ("76.1pp", "75.9pp", "76.3pp"), True),
        ("loss", ("l1", "l2", "l1"), False), ("loss", ("mse", "ce", "focal"), False),
        ("note", ("v1", "v2", "v3"), False),
    ],
)  # fmt: skip
def test_a_measure_of_which_no_cell_is_a_number_is_said(
    tmp_path: Path, name: str, cells: tuple[str, ...], noted: bool
) -> None:
    rows = "".join(f"{at},{cell},{at}\n" for at, cell in enumerate(cells))
    found = read(write(tmp_path, "a.csv", f"seed,{name},train_acc\n{rows}"), {})
    note = f"{name}: is read as text, since cells such as "
    assert any(one.startswith(note) for one in found.notes) == noted


@pytest.mark.parametrize(
    ("name", "parts"),
    {
        "scheduler.t_mult=1,seed=0": {"scheduler.t_mult": 1, "seed": 0},
        "lr=1e-3; arm=cosine bn=true": {"lr": 0.001, "arm": "cosine", "bn": True},
        "t_mult=1_weight_decay=0.1": {"t_mult": 1, "weight_decay": 0.1},
        "seed=0_model=resnet_50": {"seed": 0, "model": "resnet_50"},
        "model=resnet_50_seed=0 lr=1": {"lr": 1},
        "a=b=c x": {},
        "swift-sun-2": {},
    }.items(),
)
def test_settings_in_the_name_of_a_run(tmp_path: Path, name: str, parts: dict[str, Any]) -> None:
    text = f'"epoch","{name} - loss"\n1,0.5\n2,0.25\n'
    assert settings(read(write(tmp_path, "a.csv", text), {})) == [parts]


def test_columns_are_mapped(tmp_path: Path) -> None:
    text = "who,s,when,e,how,learning,lr,acc\na,0,5,1,done,0.1,9,1\na,0,6,2,ok,0.2,8,2\nb,1,5,1,,0.1,9,1\n"
    mapping = {"run": "who", "seed": "s", "step": "when", "epoch": "e", "status": "how", "lr": "learning"}  # fmt: skip
    found = read(write(tmp_path, "a.csv", text), mapping)
    assert found.runs["status"].to_list() == ["complete", None]
    assert settings(found) == [{"seed": 0}, {"seed": 1}]
    assert found.curves.columns == ["run", "step", "epoch", "lr", "lr (column)", "acc"]
    assert found.curves["step"].to_list() == [5, 6, 5]


def test_a_mapped_column_is_not_taken_by_its_name(tmp_path: Path) -> None:
    path = write(tmp_path, "a.csv", "trial,arm,acc\n1,a,5\n2,b,6\n")
    found = read(path, {"seed": "trial"})
    assert found.runs["run"].to_list() == ["row 1", "row 2"]
    assert settings(found)[0] == {"seed": 1, "arm": "a", "acc": 5}
    with pytest.raises(ConfigError, match="a column has one meaning"):
        read(path, {"seed": "trial", "lr": "trial"})


def test_epochs_are_steps_where_there_are_no_others(tmp_path: Path) -> None:
    path = write(tmp_path, "a.csv", "run,e,acc\na,1,5\na,2,6\n")
    for mapping in ({"epoch": "e"}, {"epoch": "e", "step": "e"}):
        assert curves(read(path, mapping)) == [(0, 1, 1, 5), (0, 2, 2, 6)]


def test_several_columns_name_a_run(tmp_path: Path) -> None:
    text = "t_mult,seed,epoch,acc\n1,0,1,5\n2,0,1,6\n1,0,2,7\n2,0,2,8\n"
    found = read(write(tmp_path, "a.csv", text), {"run": "t_mult,seed"})
    assert found.runs["run"].to_list() == ["t_mult=1, seed=0", "t_mult=2, seed=0"]
    assert settings(found) == [{"t_mult": 1, "seed": 0}, {"t_mult": 2, "seed": 0}]
    assert curves(found) == [(0, 1, 1, 5), (0, 2, 2, 7), (1, 1, 1, 6), (1, 2, 2, 8)]


def test_a_role_names_a_column_of_the_run_too(tmp_path: Path) -> None:
    text = "t_mult,fold,epoch,acc\n1,0,1,5\n2,0,1,6\n1,0,2,7\n2,0,2,8\n"
    found = read(write(tmp_path, "a.csv", text), {"run": "t_mult,seed", "seed": "fold"})
    assert settings(found) == [{"t_mult": 1, "seed": 0}, {"t_mult": 2, "seed": 0}]


def interleaved(*parts: str, steps: int = 4) -> str:
    """A table whose runs have, at each step, a row for each of `parts`, the cell of the column `part`."""
    rows = [
        f"{run},{run},{step},{part},{step + at / 7}"
        for run in (1, 2) for step in range(steps) for at, part in enumerate(parts)
    ]  # fmt: skip
    return "\n".join(["run,seed,step,part,acc", *rows, ""])


PARTS = {
    "splits": interleaved("val", "train"),
    "metrics": interleaved("acc", "loss", "lr"),
    "a number": interleaved("0", "0.05"),
    "one after the other": "run,step,part,acc\n" + "".join(f"{run},{step},{part},{step}\n" for run in "ab" for part in "xy" for step in range(4)),
    "classes": interleaved(*"01234", steps=3),
    "one half as often": "run,step,part,acc\n" + "".join(f"a,{step},{part},{step}\n" for step in range(8) for part in ("train", *["val"] * (step % 2))),
}  # fmt: skip


@pytest.mark.parametrize("name", PARTS)
def test_curves_of_one_run_that_a_column_tells_apart_are_asked_about(
    tmp_path: Path, name: str
) -> None:
    path = write(tmp_path, "a.csv", PARTS[name])
    with pytest.raises(
        ConfigError, match=r"differ in part \([\w., …()]+\); --map run=run,part"
    ) as raised:
        read(path, {})
    assert "\n" not in str(raised.value)
    found = read(path, {"run": "run,part"})
    assert all("part" in own for own in settings(found))


def crossed(head: str, ends: dict[tuple[str, str], int]) -> str:
    """A table whose runs have a curve for each pair of values, of so many steps."""
    rows = [
        f"{arm},{seed},{one},{other},{step},{seed + step}.{at}"
        for arm in "ab" for seed in (0, 1)
        for at, ((one, other), end) in enumerate(ends.items()) for step in range(end)
    ]  # fmt: skip
    return "\n".join([f"{head},epoch,acc", *rows, ""])


CROSSED = {
    "words": ("opt,seed,dataset,model", [("c10", "r18"), ("c10", "r50"), ("c100", "r18"), ("c100", "r50")], [3, 3, 3, 3]),
    "a number and words": ("opt,seed,wd,dataset", [("0.1", "c10"), ("0.1", "c100"), ("0.2", "c10"), ("0.2", "c100")], [3, 3, 3, 3]),
    "numbers": ("opt,seed,wd,lr", [("0.1", "1"), ("0.1", "2"), ("0.2", "1"), ("0.2", "2")], [3, 3, 3, 3]),
    "some were stopped early": ("opt,seed,wd,lr", [("0.1", "1"), ("0.1", "2"), ("0.2", "1"), ("0.2", "2")], [9, 6, 7, 8]),
    "not each pair": ("opt,seed,wd,lr", [("0.1", "1"), ("0.1", "2"), ("0.2", "1")], [3, 3, 3]),
}  # fmt: skip


@pytest.mark.parametrize("name", CROSSED)
def test_curves_of_one_run_that_two_columns_together_tell_apart_are_asked_about(
    tmp_path: Path, name: str
) -> None:
    head, pairs, ends = CROSSED[name]
    path = write(tmp_path, "a.csv", crossed(head, dict(zip(pairs, ends, strict=True))))
    *_, one, other = head.split(",")
    said = rf"rows of one run and step differ in {one} and {other}; --map run=opt,seed,{one},{other} makes"
    with pytest.raises(ConfigError, match=said):
        read(path, {"run": "opt,seed"})
    assert len(read(path, {"run": head}).runs) == 4 * len(pairs)


@pytest.mark.parametrize(
    ("head", "pairs", "names"),
    [("opt,seed,one,part", [("", "train"), ("", "val")], "part"),
     ("opt,seed,wd,lr", CROSSED["numbers"][1], "wd and lr")],
)  # fmt: skip
def test_several_last_rows_of_a_run_are_asked_about(
    tmp_path: Path, head: str, pairs: list[tuple[str, str]], names: str
) -> None:
    path = write(tmp_path, "a.csv", crossed(head, dict.fromkeys(pairs, 1)))
    with pytest.raises(ConfigError, match=f"rows of one run and step differ in {names}; --map"):
        read(path, {"run": "opt,seed"})
    text = "".join(f"{run},9,{run}{again},{again}\n" for run in "abc" for again in (1, 2))
    copied = read(write(tmp_path, "b.csv", f"run,step,speed,acc\n{text}"), {})
    assert len(copied.curves) == 6, "each row has a speed of its own"


BESIDE = {
    "two counts of steps": [(50, "train"), (100, "train"), (97, "val"), (150, "train"), (197, "val")],
    "a step later": [(100, "val"), (101, "train"), (200, "val"), (201, "train"), (300, "val"), (301, "train")],
}  # fmt: skip


@pytest.mark.parametrize("name", BESIDE)
def test_curves_at_different_steps_are_asked_about(tmp_path: Path, name: str) -> None:
    text = "".join(f"{run},{step},{part},{step}\n" for run in "ab" for step, part in BESIDE[name])
    path = write(tmp_path, "a.csv", f"run,step,part,acc\n{text}")
    with pytest.raises(ConfigError, match="rows of one run are of several curves in part"):
        read(path, {})
    assert len(read(path, {"run": "run,part"}).runs) == 4
    flag = text.replace("train", "true").replace("val", "false")
    for column in ("is_train", "validation"):
        path = write(tmp_path, "a.csv", f"run,step,{column},acc\n{flag}")
        with pytest.raises(ConfigError, match=f"of several curves in {column}"):
            read(path, {})


@pytest.mark.parametrize(
    ("column", "cells"),
    [
        ("improved", "yes no"), ("is_best", "true false"), ("val_improved", "true false"), ("evaluated", "true false"),
        ("lr_phase", "up down"), ("node", "n0 n1"), ("outcome", "win loss draw"), ("checkpoint", "a.pt b.pt"),
    ],
)  # fmt: skip
def test_words_that_alternate_are_no_curves(tmp_path: Path, column: str, cells: str) -> None:
    words = cells.split() * 4
    text = "".join(
        f"{run},{step},{word},{step}\n" for run in "ab" for step, word in enumerate(words)
    )
    found = read(write(tmp_path, "a.csv", f"run,step,{column},acc\n{text}"), {})
    assert found.curves["step"].to_list() == 2 * [*range(len(words))]


def test_steps_that_begin_again_in_each_epoch_go_on(tmp_path: Path) -> None:
    rows = [(run, epoch, step) for run in "ab" for epoch in (1, 2) for step in (0, 10)]
    text = "run,epoch,step,acc\n" + "".join(f"{a},{b},{c},{b}\n" for a, b, c in rows)
    found = read(write(tmp_path, "a.csv", text), {})
    assert found.curves["step"].to_list() == 2 * [11, 21, 22, 32]
    assert found.notes == ("step: begins again in each epoch, so steps are numbered over all epochs",)  # fmt: skip
    again = read(write(tmp_path, "a.csv", text.replace("b,2,", "b,1,")), {})
    assert again.curves["step"].to_list()[:4] == [11, 21, 22, 32], "where another was resumed"


EPOCHS = {  # epoch, step → the steps that are read
    "validation counts its batches": ([(e, s) for e in (1, 2, 3) for s in (50, 100, 40)], [151, 201, 141, 252, 302, 242, 353, 403, 343]),
    "evaluated in every second epoch": ([(1, 50), (1, 90), (2, 50), (2, 90), (2, 40), (3, 50), (3, 90)], [141, 181, 232, 272, 222, 323, 363]),
    "validation alone": ([(1, 40), (2, 40), (3, 40)], [81, 122, 163]),
    "validation alone, resumed": ([(1, 40), (2, 40), (3, 40), (2, 40), (3, 40)], [81, 122, 163, 122, 163]),
    "all epochs, resumed": ([(1, 10), (2, 20), (3, 30), (2, 20), (3, 30)], [10, 20, 30, 20, 30]),
    "all epochs, two rows a step": ([(1, 10), (1, 10), (2, 20), (2, 20)], [10, 10, 20, 20]),
    "all epochs, a step of two": ([(1, 10), (1, 20), (2, 20), (2, 30), (3, 30)], [10, 20, 20, 30, 30]),
    "one epoch, a step again": ([(1, 10), (1, 20), (1, 10)], [10, 20, 10]),
}  # fmt: skip


@pytest.mark.parametrize("name", EPOCHS)
def test_steps_are_those_of_an_epoch_where_epochs_share_them(tmp_path: Path, name: str) -> None:
    rows, steps = EPOCHS[name]
    text = "".join(f"{run},{e},{s},{at / 7}\n" for run in "ab" for at, (e, s) in enumerate(rows))
    found = read(write(tmp_path, "a.csv", f"run,epoch,step,acc\n{text}"), {})
    assert found.curves["step"].to_list() == 2 * steps


def test_a_counter_that_was_lost_once_is_no_step_of_epochs(tmp_path: Path) -> None:
    rows = [(run, epoch, step) for run in "abc" for epoch, step in ((1, 5), (2, 10), (3, 15))]
    text = "run,epoch,step,acc\n" + "".join(f"{a},{b},{c},{b}\n" for a, b, c in rows)
    found = read(write(tmp_path, "a.csv", text.replace("c,3,15", "c,3,5")), {})
    assert found.curves["step"].to_list() == [5, 10, 15, 5, 10, 15, 5, 10, 5]


ONE_CURVE = {
    "attempts": [(1, "1"), (2, "1"), (3, "1"), (2, "2"), (3, "2"), (4, "2")],
    "phases": [(1, "up"), (2, "up"), (3, "down"), (4, "down")],
    "resumed on another machine": [(1, "a"), (2, "a"), (3, "a"), (4, "a"), (4, "b"), (5, "b"), (6, "b")],
    "times": [(1, "9:01"), (2, "9:02"), (1, "9:03"), (2, "9:04"), (3, "9:05")],
    "copied": [(1, "a"), (1, "a"), (2, "a"), (2, "a")],
    "in order": [(1, "a"), (2, "b"), (3, "c")],
}  # fmt: skip


@pytest.mark.parametrize("name", ONE_CURVE)
def test_one_curve_is_not_asked_about(tmp_path: Path, name: str) -> None:
    rows = "".join(f"r,{step},{part},{step / 7}\n" for step, part in ONE_CURVE[name])
    found = read(write(tmp_path, "a.csv", "run,step,part,acc\n" + rows), {})
    assert found.curves["step"].to_list() == [step for step, _ in ONE_CURVE[name]]


ONE_CURVE_IN_SEVERAL_COLUMNS = {
    "a row a kind of value": "run,step,lr,loss,nan_batches,acc\n" + "".join(f"{run},{step},{cells}\n" for run in "ab" for step in range(4) for cells in ("0.1,,,", ",,,7", ",0.5,0,")),
    "restarted on other nodes": "run,step,node,queue,acc\n" + "".join(f"{run},{step},{place},{step}\n" for run in "ab" for end, place in ((6, "n1,q1"), (7, "n2,q1"), (8, "n1,q2")) for step in range(end)),
}  # fmt: skip


@pytest.mark.parametrize("name", ONE_CURVE_IN_SEVERAL_COLUMNS)
def test_columns_that_say_nothing_of_curves_are_not_asked_about(tmp_path: Path, name: str) -> None:
    found = read(write(tmp_path, "a.csv", ONE_CURVE_IN_SEVERAL_COLUMNS[name]), {})
    assert found.runs["run"].to_list() == ["a", "b"]


@pytest.mark.parametrize(
    "flags", ["00110101", "01010101", "00001111"], ids=lambda one: f"flags {one}"
)
def test_runs_that_were_resumed_are_not_asked_about_their_flags(tmp_path: Path, flags: str) -> None:
    steps = [1, 2, 3, 4, 3, 4, 5, 6]
    rows = "".join(
        f"{run},{step},{'ab'[int(flag)]},{flags[-at - 1]},{'xy'[at // 4]},{at / 7}\n"
        for run in "rs" for at, (step, flag) in enumerate(zip(steps, flags, strict=True))
    )  # fmt: skip
    head = "run,step,is_best,phase_number,machine,acc\n"
    found = read(write(tmp_path, "a.csv", head + rows), {})
    assert found.curves["step"].to_list() == 2 * steps


def test_a_named_result_that_is_the_same_in_each_row_is_a_metric(tmp_path: Path) -> None:
    text = "run,step,t_mult,test_acc,acc\na,1,2,7.5,1\na,2,2,7.5,2\nb,1,1,8,1\nb,2,1,8,3\n"
    assert read(write(tmp_path, "a.csv", text), {}).metrics == ["test_acc", "acc"]


def test_a_table_without_an_end_gets_a_note(tmp_path: Path) -> None:
    note = "its last line has no end: is the file whole?"
    for end, notes in (("\n", ()), ("", (note,))):
        assert read(write(tmp_path, "a.csv", f"arm,acc\na,1\nb,2{end}"), {}).notes == notes


def test_one_value_and_empty_cells_are_a_setting_and_a_metric(tmp_path: Path) -> None:
    text = "run,step,t_mult,test,tag,acc\na,1,2,,x,1\na,2,,7.5,,2\nb,1,1,,y,1\nb,2,,,,3\n"
    found = read(write(tmp_path, "a.csv", text), {})
    assert settings(found) == [
        {"t_mult": 2, "test": 7.5, "tag": "x"},
        {"t_mult": 1, "tag": "y"},
    ]
    assert found.metrics == ["t_mult", "test", "acc"]
    assert found.notes == ()


def test_types_of_parquet(tmp_path: Path) -> None:
    frame = pl.DataFrame(
        {
            "run": pl.Series(["a", "b"], dtype=pl.Categorical),
            "seed": pl.Series([0, 2**64 - 1], dtype=pl.UInt64),
            "bn": [True, False],
            "took": [timedelta(seconds=1), None],
            "nothing": [None, None],
            "^acc.*$": pl.Series([0.5, 0.25], dtype=pl.Float32),
            "price": pl.Series(["1.5", "2.5"]).cast(pl.Decimal(10, 2)),
            "__index_level_0__": [0, 1],
        }
    )
    found = read(write(tmp_path, "a.parquet", parquet(frame)), {})
    assert settings(found)[1] == {"seed": 2**64 - 1, "bn": False, "^acc.*$": 0.25, "price": 2.5}  # fmt: skip
    assert found.metrics == ["^acc.*$", "price"]
    assert found.notes == ("1 column(s) without a name are left out",)


@given(st.lists(st.floats(width=32), min_size=1, max_size=20))
def test_settings_of_single_precision_are_their_shortest_decimals(
    tmp_path_factory: pytest.TempPathFactory, values: list[float]
) -> None:
    rows = len(values) + 1
    lr, acc = (pl.Series([0.1, *values], dtype=pl.Float32) for _ in range(2))
    content = parquet(pl.DataFrame({"run": range(rows), "seed": [0] * rows, "lr": lr, "acc": acc}))
    found = read(write(tmp_path_factory.getbasetemp(), "single.parquet", content), {})
    read_lr = [float(own["lr"]) for own in settings(found)]
    assert read_lr[0] == 0.1
    assert pl.Series(read_lr, dtype=pl.Float32).equals(lr)
    assert [bits(one) for one in found.curves["acc"]] == [bits(one) for one in acc]


FINAL = "t_mult,seed,acc\n1,0,{}\n2,0,{}\n"


@pytest.mark.parametrize(
    ("text", "metrics", "note"),
    {
        "percent": (FINAL.format("93.1 %", "94%"), {"acc": [93.1, 94.0]}, "acc: is in %"),
        "words for nothing": (FINAL.format("n/a", "94"), {"acc": [None, 94.0]}, "cells such as 'n/a' are read as empty"),
        "a word": (FINAL.format("OOM", "94"), {"t_mult": [1.0, 2.0]}, "acc: is read as text, since cells such as 'oom' (row 1) are no numbers"),
        "index of a frame": ("Unnamed: 0,t_mult,acc\n0,1,5\n0,2,6\n", {"acc": [5.0, 6.0]}, "without a name"),
        "index of pandas": (",t_mult,acc\n0,1,5\n1,2,6\n", {"acc": [5.0, 6.0]}, "without a name"),
        "one row a run": ("run,step,acc\na,9,5\nb,8,6\n", {"step": [9, 8], "acc": [5.0, 6.0]}, ""),
        "fractions of epochs": ("run,epoch,acc\na,0.5,5\na,1,6\nb,1,7\n", {"acc": [5.0, 6.0, 7.0], "epoch": [0.5, 1, 1]}, "epoch: has fractions, so its different values are numbered as steps"),
        "infinite": (FINAL.format("inf", "-Infinity"), {"acc": [math.inf, -math.inf]}, ""),
        "signs": (FINAL.format("+1", ".5"), {"acc": [1.0, 0.5]}, ""),
        "a formula": ("t_mult,f,acc\n1,=SUM(A1),1\n2,=1+1,2\n", {"t_mult": [1, 2], "acc": [1, 2]}, ""),
        "html": ("<b>x</b>,acc\n<script>,1\ny,2\n", {"acc": [1.0, 2.0]}, ""),
        "a control character": ("a\x1b[2Jb,c\n1,2\n3,4\n", {"a [2Jb": [1.0, 3.0]}, ""),
        "integral floats as steps": ("run,step,acc\na,1.0,5\na,2.0,6\n", {"acc": [5.0, 6.0]}, ""),
        "a quoted line break": ('name,acc\n"a\nb",1\nc,2\n', {"acc": [1.0, 2.0]}, ""),
        "a list": ('h,acc\n"[1,2]",1\n"a,b",2\n', {"acc": [1.0, 2.0]}, ""),
        "names repeat": ("name,acc\na,1\na,2\n", {"acc": [1.0, 2.0]}, ""),
        "names as of a chart": ("Method,Acc - top1,Acc - top5\na,1,2\nb,3,4\n", {"Acc - top1": [1.0, 3.0]}, ""),
        "empty metric": ("t_mult,note,acc\n1,,1\n2,,2\n", {"t_mult": [1.0, 2.0], "acc": [1.0, 2.0]}, ""),
    }.values(),
)  # fmt: skip
def test_odd_tables_are_read(tmp_path: Path, text: str, metrics: dict[str, Any], note: str) -> None:
    found = read(write(tmp_path, "a.csv", text), {})
    for name, values in metrics.items():
        assert found.curves[name].to_list() == values
    assert note in "\n".join(found.notes)
    assert bool(found.notes) == bool(note)


def zipped() -> bytes:
    buffer = BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("a.csv", LONG)
    return buffer.getvalue()


GOOD = parquet(pl.DataFrame({"run": ["a", "b"], "acc": [1.0, 2.0]}))


@dataclass
class Refused:
    content: str | bytes
    says: str
    name: str = "a.csv"
    mapping: tuple[str, str] | None = None


REFUSED = {
    "empty": Refused("", "is empty"),
    "a column a seed": Refused("arm,seed 0,seed 1\na,1,2\nb,2,3\n", "seed 0, seed 1 are a column a seed; give a row a run"),
    "only a byte order mark": Refused(b"\xef\xbb\xbf\n", "is empty"),
    "a header only": Refused("a,b\n", "a first line and no rows"),
    "markdown without rows": Refused("| a | b |\n|---|---|\n", "a first line and no rows"),
    "a rule only": Refused("|---|---|\n", "no names of columns in its first line", "a.md"),
    "a pipe only": Refused("abc\n|", "no names of columns in its first line", "a.md"),
    "Excel's line only": Refused("sep=;\n", "no names of columns in its first line"),
    "separators only": Refused(";\n1;2\n", "has no column with a name"),
    "an odd blank only": Refused("\x85\n", "has no column with a name", "a.jsonl"),
    "one column": Refused("acc\n1\n2\n", "has one column (acc)"),
    "no header": Refused("1,2,0.5\n2,2,0.6\n", "no names of columns in its first line"),
    "names twice": Refused("acc,acc\n1,2\n", "two columns are named 'acc'; rename"),
    "rows of one ID that differ": Refused(RUNS_CSV.replace('"x2"', '"x1"'), "rows 1, 2 have the ID x1 and differ in State, Runtime, scheduler.t_mult, val/acc, … (5 in all); keep one row a run"),
    "names that differ in blanks": Refused("acc,acc \n1,2\n", "two columns are named 'acc'"),
    "a short row": Refused("a,b,c\n1,2,3\n1,2\n", "line 3 has 2 cells, and the first line 3"),
    "blanks in an aligned cell": Refused("factor   acc\none  cycle   5\nb   6\n", "line 2 has 3 cells, and the first line 2; put two or more blanks, or commas, between all cells"),
    "an aligned column that is empty": Refused("  lr  t_mult  note  acc\n0  1  2        5\n1  1  1        6\n", "line 2 has 4 cells, and the first line 5"),
    "an aligned header that is cut": Refused("  lr  t_mult  \\\n0  1  2\n1  1  1\n\n  acc\n0  5\n1  6\n", "line 5 has 1 cells, and the first line 3"),
    "an aligned row that is cut": Refused("  factor  acc\n0  a  5\n..  ..  ..\n9  b  6\n", "acc: is read as text, since cells such as '..' (row 2) are no numbers"),
    "one blank between cells": Refused("my factor acc\na 5\nb 6\n", "has one column (my factor acc); put a comma, a tab, | or two blanks between columns"),
    "an empty cell of psql": Refused(" a | b\n---+---\n | 2\n 1\n | 3\n", "a second table in line 5"),
    "a long row": Refused("a,b\n1,2,3\n", "line 2 has 3 cells"),
    "cut in a quote": Refused('a,b\n1,"2\n', "damaged quotes"),
    "text after a quote": Refused('a,b\n1,"2"3\n', "damaged quotes"),
    "a huge cell": Refused("a,b\n1," + "x" * 200_000 + "\n", "has a cell of more than 131,072 characters"),
    "too many columns": Refused(",".join(f"c{n}" for n in range(1001)) + "\n", "1,001 columns"),
    "too many keys": Refused(json.dumps({f"c{n}": n for n in range(1001)}), "1,001 columns", "a.jsonl"),
    "latin 1": Refused("größe,b\n1,2\n".encode("latin-1"), "is not UTF-8"),
    "utf-16": Refused("a,b\n1,2\n".encode("utf-16"), "is UTF-16; save it as UTF-8"),
    "binary": Refused(b"a,b\n\0\1", "is not text"),
    "gzip": Refused(gzip.compress(LONG.encode()), "is compressed; unpack it first", "a.csv.gz"),
    "zip": Refused(zipped(), "ZIP archive or an Excel file", "a.xlsx"),
    "mean and deviation": Refused(FINAL.format("93.1 ± 0.2", "94 ± 1"), "the column 'acc' has the cell '93.1 ± 0.2': a mean"),
    "deviation in ASCII": Refused(FINAL.format("93.1+-0.2", "94+-1"), "a mean and its deviation"),
    "deviation in brackets": Refused(FINAL.format("93.1 (0.2)", "94"), "a mean and its deviation"),
    "a difference in brackets": Refused("arm,acc\na,93.1 (+0.2)\nb,92.9\n", "no column of numbers can be a metric; columns are arm, acc; acc: is read as text, since cells such as '93.1 (+0.2)' (row 1)"),
    "thousands": Refused(FINAL.format('"1,234.5"', '"2,000"'), "thousands separators"),
    "thousands by blanks": Refused(FINAL.format("1 234", "5"), "thousands separators"),
    "thousands by no-break spaces": Refused(FINAL.format("1\u202f234", "5"), "thousands separators"),
    "thousands by dots": Refused(FINAL.format("1.234.567", "5"), "thousands separators"),
    "decimal commas": Refused("t_mult;acc\n1;0,93\n2;0,94\n", "'0,93': thousands separators and decimal commas"),
    "some percent": Refused(FINAL.format("93 %", "0.94"), "with and without %"),
    "no run": Refused("t_mult,seed,step,acc\n1,0,1,5\n", "--map run=COLUMN, or several that do together, as run=t_mult,seed; columns are t_mult, seed, step, acc"),
    "no step": Refused("run,acc\na,1\na,2\n", "no column is a step; --map step=COLUMN"),
    "the seed changes": Refused("experiment,seed,step,acc\na,0,1,5\na,1,1,5\na,1,2,6\n", "--map run=experiment,seed"),
    "an empty run": Refused("run,step,acc\na,1,5\n ,2,6\n", "row 2 has no run in the column 'run'"),
    "an empty step": Refused("run,step,acc\na,1,5\na,,6\n", "row 2 has no number in the column 'step'"),
    "a step in words": Refused("run,step,acc\na,one,5\na,two,6\n", "row 1 has no number in the column 'step'"),
    "an infinite step": Refused("run,step,acc\na,1,5\na,inf,6\n", "row 2 has no number"),
    "a huge step": Refused(f"run,step,acc\na,1,5\na,{2**70},6\n", "has a step above 2^63"),
    "no metric": Refused("run,step,lr,arm\na,1,0.1,x\na,2,0.1,x\n", "no column of numbers can be a metric; columns are run, step, lr, arm"),
    "a chart of means": Refused(CHART.replace('"60.5","60.5","60.5"', '"60.5","60.1","60.9"'), "'t_mult=2, seed=3 - val/acc__MIN' is not the value, so the chart shows means"),
    "a chart with words": Refused("Step,a - acc,b - acc\n1,x,1\n2,2,y\n", "'a - acc' has cells that are no numbers"),
    "a chart, mapped": Refused(CHART, "leave out --map", mapping=("run", "Step")),
    "a broken line": Refused('{"a": 1, "b": 2}\n{"a": 1,\n', "line 2 is not JSON", "a.jsonl"),
    "a list in a line": Refused('{"a": 1, "b": 2}\n[1]\n', "line 2 is no JSON object", "a.jsonl"),
    "numbers in an array": Refused('[\n{"a": 1},\n1]', "item 2 is no JSON object; write an object a line", "a.json"),
    "an empty array": Refused("[ ]", "is an empty JSON array", "a.json"),
    "a cut array": Refused('[{"a": 1},', 'is not JSON (Expecting value: line 1 column 11 (char 10)); write an object a line (pandas: to_json(…, orient="records", lines=True))', "a.json"),
    "a JSON document": Refused('{\n "a": 1,\n "b": 2\n}', "write an object a line", "a.json"),
    "columns of pandas": Refused('{"t_mult":{"0":1,"1":2},"acc":{"0":5,"1":6}}', "is one JSON object with others or lists in it; write an object a line", "a.json"),
    "runs in an object": Refused('{"runs": [{"a": 1, "b": 2}]}', "is one JSON object with others or lists in it", "a.json"),
    "a header again": Refused("t_mult,acc\n1,5\nt_mult,acc\n2,6\n", "line 3 has the names of columns again, as where files were joined; delete it"),
    "a short row after Excel's line": Refused("sep=,\na,b,c\n1,2,3\n1,2\n", "line 4 has 2 cells, and the first line 3"),
    "deep JSON": Refused('{"a":' * 100_000, "line 1 is not JSON", "a.jsonl"),
    "a huge integer": Refused('{"a": ' + "9" * 5000 + "}", "line 1 is not JSON", "a.jsonl"),
    "two tables": Refused("| a | b |\n| 1 | 2 |\n\n| c |\n", "a second table in line 4", "a.md"),
    "not Parquet": Refused(LONG, "is not a Parquet file", "a.parquet"),
    "encrypted Parquet": Refused(b"PARE" + GOOD[4:], "is an encrypted Parquet file", "a.parquet"),
    "cut Parquet": Refused(GOOD[:-20], "is a damaged or encrypted Parquet file", "a.parquet"),
    "nested Parquet": Refused(parquet(pl.DataFrame({"run": ["a"], "x": [[1.0]]})), "the column 'x' is List(Float64)", "a.parquet"),
    "Parquet of bytes": Refused(parquet(pl.DataFrame({"run": ["a"], "x": [b"1"]})), "the column 'x' is Binary", "a.parquet"),
    "Parquet without rows": Refused(parquet(pl.DataFrame({"run": ["a"], "x": [1]})[:0]), "and no rows", "a.parquet"),
    "mapped to nothing": Refused(LONG, "no such column; did you mean val/acc?", mapping=("lr", "val_acc")),
    "a run of nothing": Refused(LONG, "--map run=arm: ", mapping=("run", "seed,arm")),
    "a column with two meanings": Refused(LONG, "the column 'step' is the run and the step", mapping=("run", "step,seed")),
    "no such role": Refused(LONG, "--map loss=lr: ", mapping=("loss", "lr")),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED.values(), ids=REFUSED)
def test_what_is_no_table_of_runs_is_refused_in_one_line(tmp_path: Path, case: Refused) -> None:
    path = write(tmp_path, case.name, case.content)
    with pytest.raises((ConfigError, UnreadableError)) as raised:
        read(path, dict([case.mapping] if case.mapping else []))
    message = str(raised.value)
    assert case.says in message
    assert "\n" not in message
    assert str(path) in message or case.mapping or "the source has" in message
    assert len(message) < 900


def test_sizes_are_known_before_a_column_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(table_files, "MOST_CELLS", 20)
    monkeypatch.setattr(table_files, "_load", None)
    frame = pl.DataFrame({"run": ["a"] * 11, "acc": [1.0] * 11})
    contents = {"a.csv": frame.write_csv().encode(), "a.jsonl": frame.write_ndjson().encode()}
    for name, content in (contents | {"a.parquet": parquet(frame)}).items():
        with pytest.raises(ConfigError, match="has 22 cells, and at most 20 are read"):
            read(write(tmp_path, name, content), {})


def test_what_is_no_file_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.csv")
    for name in ("pipe.csv", "missing.csv", "."):
        with pytest.raises(UnreadableError, match="is not a file, or there is none"):
            read(tmp_path / name, {})


def test_the_name_of_a_file_is_no_pattern(tmp_path: Path) -> None:
    folder = tmp_path / "seed=1"
    folder.mkdir()
    found = read(write(folder, "[a]*.parquet", GOOD), {})
    assert settings(found) == [{"acc": 1.0}, {"acc": 2.0}]


def test_damaged_parquet_ends_in_one_line_or_is_read(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    chance = random.Random(0)
    original = parquet(pl.DataFrame({"run": ["a", "b"] * 50, "step": range(100), "acc": [n / 7 for n in range(100)]}))  # fmt: skip
    for _ in range(150):
        data = bytearray(original)
        for _ in range(chance.randint(1, 4)):
            data[chance.randrange(4, len(data))] = chance.randrange(256)
        try:
            read(write(tmp_path, "a.parquet", bytes(data)), {})
        except (ConfigError, UnreadableError) as error:
            assert "\n" not in str(error)  # noqa: PT017
    os.write(2, b"after")
    assert capfd.readouterr() == ("", "after")


def bits(value: float | None) -> bytes | None:
    return None if value is None else struct.pack("<d", math.nan if value != value else value)


words = st.text(st.characters(codec="utf-8", exclude_categories=("Cs", "Cc")), max_size=20).map(lambda text: f"x{text}x")  # fmt: skip
numbers = st.none() | st.floats(allow_subnormal=True)


@st.composite
def experiments(draw: st.DrawFn) -> tuple[list[dict[str, Any]], list[list[tuple[int, Any, Any]]]]:
    """Settings and rows (step, loss, acc) of two to four runs; loss changes in each."""
    number = draw(st.integers(2, 4))
    found = []
    for _ in range(number):
        rows = draw(st.lists(st.tuples(st.integers(-5, 2**62), numbers, numbers), min_size=1, max_size=4))  # fmt: skip
        found.append([(0, 0.5, 0.5), (1, -0.0, 0.25), *rows])
    arms = [
        {
            "seed": draw(st.integers(0, 2**64 - 1)), "arm": draw(words), "wd": draw(st.floats(allow_nan=False, allow_infinity=False)), "bn": draw(st.booleans()),
        }
        for _ in range(number)
    ]  # fmt: skip
    return arms, found


def as_csv(rows: list[dict[str, Any]]) -> bytes:
    text = StringIO(newline="")
    writer = csv.DictWriter(text, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


def as_parquet(rows: list[dict[str, Any]]) -> bytes:
    schema = {"run": pl.String, "step": pl.Int64, "seed": pl.UInt64, "loss": pl.Float64, "acc": pl.Float64}  # fmt: skip
    return parquet(pl.DataFrame(rows, schema_overrides=schema))


def as_json_lines(rows: list[dict[str, Any]]) -> bytes:
    return "\n".join(map(json.dumps, rows)).encode()


@pytest.mark.parametrize("write_rows", [as_csv, as_json_lines, as_parquet])
@given(drawn=experiments(), chance=st.randoms(use_true_random=False))
def test_values_come_back_bit_for_bit(
    write_rows: Any,
    tmp_path_factory: pytest.TempPathFactory,
    drawn: tuple[list[dict[str, Any]], list[list[tuple[int, Any, Any]]]],
    chance: random.Random,
) -> None:
    arms, recorded = drawn
    waiting = [[*run] for run in recorded]
    rows = []
    while left := [n for n, run in enumerate(waiting) if run]:
        n = chance.choice(left)
        step, loss, acc = waiting[n].pop(0)
        rows.append({"run": f"r{n}", **arms[n], "step": step, "loss": loss, "acc": acc})
    found = read(write(tmp_path_factory.getbasetemp(), "a.table", write_rows(rows)), {})
    order = [int(name[1:]) for name in found.runs["run"]]
    assert sorted(order) == list(range(len(arms)))
    expected = [arms[n] | {"arm": clean(arms[n]["arm"])} for n in order]
    assert settings(found) == expected
    assert [bits(arm["wd"]) for arm in settings(found)] == [bits(arm["wd"]) for arm in expected]
    assert [(r, s, bits(loss), bits(acc)) for r, s, loss, acc in curves(found)] == [
        (r, s, bits(loss), bits(acc)) for r, n in enumerate(order) for s, loss, acc in recorded[n]
    ]


@given(st.lists(st.from_regex(r"[+-]?[0-9]{1,40}(\.[0-9]{0,40})?([eE][+-]?[0-9]{1,3})?", fullmatch=True), min_size=1, max_size=50))  # fmt: skip
def test_text_is_rounded_as_python_rounds_it(texts: list[str]) -> None:
    read_as = pl.Series(texts).cast(pl.Float64)
    assert [bits(value) for value in read_as] == [bits(float(text)) for text in texts]
