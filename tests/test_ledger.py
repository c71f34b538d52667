"""The ledger of what was judged on which runs, and what verdicts say of it."""

from __future__ import annotations

import json
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import forked
import pytest
from conftest import ROOT, Main
from test_faults import TINY

from harness.analysis import ledger
from harness.analysis.ledger import Entry
from harness.analysis.verdict import Claim
from harness.store.commit import program_commit

CLAIM = Claim("scheduler.t_mult", "1", ("2",), seeds=(0, 1)).to_dict()


def entry(plan: str = "p", runs: tuple[str, ...] = ("a", "b")) -> Entry:
    return Entry.now(plan, CLAIM, list(runs), "sweep")


# --- the file ------------------------------------------------------------------------------------


def test_an_entry_is_there_once(tmp_path: Path) -> None:
    path = tmp_path / "below/ledger.jsonl"
    assert ledger.judged(path, entry("p")) == ([], [])
    assert ledger.judged(path, entry("q"))[0] == [*ledger.read(path)[0]][:1]
    for plan in "pq":
        found, faults = ledger.judged(path, entry(plan))
        assert ([one.plan for one in found], faults) == (["p", "q"], [])
    assert len(path.read_text().splitlines()) == 2
    assert "sha256" not in json.loads(path.read_text().splitlines()[0])["claim"]


def test_runs_of_a_plan_that_were_not_judged_before_are_added(tmp_path: Path) -> None:
    """As after a report of a sweep under way."""
    path = tmp_path / "ledger.jsonl"
    for runs in (("a",), ("a", "b"), ("b",), ()):
        ledger.judged(path, entry(runs=runs))
    assert [one.runs for one in ledger.read(path)[0]] == [["a"], ["a", "b"]]


def test_without_a_path_there_is_no_ledger() -> None:
    assert ledger.judged(None, entry()) == ([], [])


def test_entries_of_several_writers_are_whole(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    plans = [str(number % 5) for number in range(20)]
    with ThreadPoolExecutor(4) as pool:
        done = list(pool.map(lambda plan: ledger.judged(path, entry(plan)), plans))
    assert [faults for _, faults in done] == [[]] * 20
    found, faults = ledger.read(path)
    assert sorted(one.plan for one in found) == list("01234")
    assert faults == []


def changed(**values: Any) -> str:
    return json.dumps(vars(entry()) | values)


@pytest.mark.parametrize(
    "line",
    [
        "", "words", "[]", "{}", "null", "[" * 100_000, changed()[:-9], changed(more=1),
        changed(time=5), changed(time="once"), changed(runs="ab"), changed(runs=[1]), changed(claim=[]),
        changed(claim=CLAIM | {"margin": "0.2"}), changed(claim=CLAIM | {"seeds": ["0"]}),
        changed(claim=CLAIM | {"margin": float("nan")}), changed(claim=CLAIM | {"treatments": [[]]}),
        changed(claim=CLAIM | {"rivals": [[]]}), changed(claim=CLAIM | {"tuned_over": {}, "factor": {}}),
    ],
)  # fmt: skip
def test_a_damaged_line_is_named_and_passed_over(tmp_path: Path, line: str) -> None:
    path = tmp_path / "ledger.jsonl"
    path.write_text(f"{changed(plan='p')}\n{line}\n{changed(plan='q')}\n")
    found, (fault,) = ledger.judged(path, entry("r"))
    assert [one.plan for one in found] == ["p", "q"]
    assert fault.startswith(f"{path}, line 2: is no entry of a ledger (")
    assert len(fault) < len(str(path)) + 150
    assert [one.plan for one in ledger.read(path)[0]] == ["p", "q", "r"]


def test_a_line_that_was_cut_off_does_not_spoil_the_next(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    path.write_text(f"{changed(plan='p')}\n{changed(plan='q')[:50]}")
    ledger.judged(path, entry("r"))
    found, faults = ledger.read(path)
    assert [one.plan for one in found] == ["p", "r"]
    assert len(faults) == 1


@pytest.mark.parametrize("name", ["ledger.jsonl", "ledger.jsonl.lock"])
def test_a_link_leads_nowhere(tmp_path: Path, name: str) -> None:
    """In a folder of somebody else the ledger may be a link to any file of ours."""
    own = tmp_path / "own"
    own.write_text("mine")
    (tmp_path / name).symlink_to(own)
    found, (fault,) = ledger.judged(tmp_path / "ledger.jsonl", entry())
    assert found == []
    assert f"{tmp_path / name}: is a link; give the file that it leads to" in fault
    assert own.read_text() == "mine"


# --- through the command line --------------------------------------------------------------------


def words(folder: Path, name: str, *overrides: str) -> list[str]:
    return [
        "-m", *TINY, "scheduler.t_mult=1,2", "seed=0,1", f"store.dir={folder}/store",
        f"hydra.sweep.dir={folder}/{name}", f"ledger.path={folder}/ledger.jsonl", *overrides,
    ]  # fmt: skip


def verdict(sweep: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((sweep / "verdict.json").read_text())
    return document


def entries(folder: Path) -> list[Entry]:
    found, faults = ledger.read(folder / "ledger.jsonl")
    assert faults == []
    return found


def of(result: Path) -> tuple[str | None, bool | None]:
    document = json.loads(result.read_text())
    return document["commit"], document["dirty"]


@pytest.fixture(scope="module")
def judged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the sweep `first`, its store and its ledger."""
    folder = tmp_path_factory.mktemp("judged")
    code, said = forked.run(folder / "log", "train.py", *words(folder, "first"))
    assert code == 0, said
    return folder


def test_a_sweep_of_new_runs_has_nothing_to_say(judged: Path) -> None:
    document, code = verdict(judged / "first"), program_commit()
    assert document["provenance"] == {
        "runs": 4, "existed_before": 0, "other_claims": [], "other_claims_count": 0, "seeds": None,
        "commits": [f"{code.commit}{'-dirty' * bool(code.dirty)}"] if code.commit else [],
    }  # fmt: skip
    assert {of(path) for path in judged.glob("first/*/result.json")} == {code}
    assert document["sentence"].count(". ") == 0
    (one,) = entries(judged)
    ids = [json.loads(path.read_text())["run_id"] for path in judged.glob("first/*/result.json")]
    assert (one.runs, one.sweep) == (sorted(ids), "first")
    claim = {name: value for name, value in document["claim"].items() if name != "sha256"}
    assert one.claim == claim


@pytest.mark.slow
def test_reports_of_a_plan_add_nothing(judged: Path, report: Main, main: Main) -> None:
    before = (judged / "ledger.jsonl").read_bytes()
    for _ in range(2):
        done = report(judged / "first", "--ledger", judged / "ledger.jsonl")
        assert done.returncode == 0, done.stderr
    assert main(*words(judged, "first")).returncode == 0
    assert (judged / "ledger.jsonl").read_bytes() == before


def test_runs_that_were_there_are_counted(judged: Path, main: Main) -> None:
    before = (judged / "ledger.jsonl").read_bytes()
    assert main(*words(judged, "again")).returncode == 0
    assert verdict(judged / "again")["provenance"]["existed_before"] == 4
    assert verdict(judged / "again")["sentence"].endswith(" 4 of 4 runs existed before this plan.")
    assert (judged / "ledger.jsonl").read_bytes() == before, "it is the same plan"


@pytest.mark.slow
def test_other_claims_on_the_same_runs_are_named(judged: Path, main: Main, report: Main) -> None:
    done = main(*words(judged, "other", "seed=0,1,3", "claim.margin=0.1"))
    assert done.returncode == 0, done.stderr
    (first, second) = entries(judged)[:2]
    day = first.time[:10]
    said = (
        f"4 of 6 runs existed before this plan; some of these runs were also judged with margin=0.2 and "
        f"seeds 0–1 ({day}); seeds 0–1, 3."
    )
    assert verdict(judged / "other")["sentence"].endswith(f" {said}")
    assert said in done.stdout
    page = (judged / "other/report.html").read_text()
    assert said in page
    assert f"with margin=0.2 and seeds 0–1 ({day})</dd>" in page
    assert verdict(judged / "other")["provenance"]["other_claims"] == [
        {"differs": {"margin": 0.2, "seeds": [0, 1]}, "date": day, "runs": 4, "of": 6}
    ]
    done = report(judged / "first", "--ledger", judged / "ledger.jsonl")
    said = f" These runs were also judged with margin=0.1 and seeds 0–1, 3 ({second.time[:10]})."
    assert verdict(judged / "first")["sentence"].endswith(said)


@pytest.mark.slow
def test_a_ledger_that_is_damaged_or_cannot_be_written_costs_a_warning(
    judged: Path, tmp_path: Path, report: Main
) -> None:
    damaged = tmp_path / "ledger.jsonl"
    damaged.write_text("no entry\n")
    (tmp_path / "file").touch()
    for path, said in (
        (damaged, f"{damaged}, line 1: is no entry of a ledger"),
        (tmp_path / "file/ledger.jsonl", "the ledger is not complete: "),
        (tmp_path, f"the ledger is not complete: {tmp_path}: is not a file"),
    ):
        done = report(judged / "first", "--out", tmp_path / "out", "--ledger", path)
        assert done.returncode == 0, done.stderr
        assert f"warning: {said}" in done.stdout
        page = (tmp_path / "out/report.html").read_text()
        assert re.sub(r"/\S*/", "…/", said) in page, "without the folders of this machine"
        assert verdict(tmp_path / "out")["comparisons"][0]["n"] == 2


@pytest.mark.slow
def test_the_ledger_is_where_the_command_is_given_or_nowhere(judged: Path, tmp_path: Path) -> None:
    script, out = str(ROOT / "scripts/report.py"), ["--out", str(tmp_path / "out")]
    environment = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT)}
    arguments: list[str | Path] = [script, judged / "first", *out]
    for more, there in (
        (["--ledger", "none"], set()),
        ([], {"ledger.jsonl", "ledger.jsonl.lock"}),
    ):
        done = forked.complete(*arguments, *more, cwd=tmp_path, env=environment)
        assert done.returncode == 0, done.stderr
        assert {path.name for path in tmp_path.iterdir()} == {"out", *there}
    assert len(entries(tmp_path)) == 1


@pytest.mark.slow
def test_no_file_of_a_sweep_names_the_ledger(judged: Path, tmp_path: Path, report: Main) -> None:
    """The plan, configurations and results of somebody else name a file of ours."""
    own = tmp_path / "own.jsonl"
    own.write_text(f"{changed(plan='mine')}\n")
    sweep = tmp_path / "theirs"
    sweep.mkdir()
    for path in judged.glob("first/**/*"):
        target = sweep / path.relative_to(judged / "first")
        target.parent.mkdir(exist_ok=True, parents=True)
        if path.is_file():
            named = path.suffix == ".json"
            content = path.read_bytes()
            target.write_bytes(
                content.replace(f"{judged}/ledger.jsonl".encode(), bytes(own)) if named else content
            )
    assert str(own) in (sweep / "plan.json").read_text()
    before = own.read_bytes()
    done = report(sweep, "--ledger", tmp_path / "ledger.jsonl")
    assert done.returncode == 0, done.stderr
    assert own.read_bytes() == before
    assert len(entries(tmp_path)) == 1
    assert report(sweep).returncode == 0
    assert own.read_bytes() == before
