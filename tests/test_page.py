"""The report in a real browser: drawn, sorted, switched, in the dark, on a phone, under attack."""

# mypy: disable-error-code="func-returns-value"

from __future__ import annotations

import importlib.util
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
import pytest
from conftest import need
from test_looks import CLAIM, GAIN, HOPELESS, OPEN, TWO, arm
from test_verdict import judged, rows

from harness.analysis import results
from harness.files import write_checked
from harness.report import charts
from harness.report import page as report

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Dialog, Page

CHROMIUM = Path("/usr/bin/chromium")
QUIET = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
ABOUT: dict[str, Any] = {
    "title": "a sweep",
    "command": "python train.py -m scheduler.t_mult=1,2",
    "commands": ["python train.py -m scheduler.t_mult=1,2"],
    "plan_sha256": "c0ffee" * 10,
    "versions": {"torch": "2.14.1"},
    "commit": "06a92dd",
    "created": "2026-11-23 02:10 UTC",
    "warnings": [],
}
HOSTILE = (
    "<script>window.hacked=1;alert(1)</script>",
    '"></script><img src=x onerror="window.hacked=1;alert(1)">',
    "'; alert(1); //\\\" `${alert(1)}` {{ 7*7 }} datum['a'].b",
    "<!-- <script> ünï 学習率 \u202e \u2028 javascript:alert(1)",
)
STATUSES = {"complete": None, "failed": "OSError: disk full", "diverged": "loss is not finite"}


# --- sweeps as the harness leaves them -----------------------------------------------------------


def write_sweep(
    folder: Path,
    arms: list[str],
    seeds: int,
    epochs: int = 20,
    spoiled: dict[int, str] | None = None,
    tracking: Callable[[int], str] = lambda num: "",
) -> pl.DataFrame:
    """A sweep's folder and its runs; `spoiled` runs end with that status, `missing` ones do not begin."""
    plan: dict[str, Any] = {"command": ["train.py", "-m"], "claim": None, "arms": []}
    for num in range(len(arms) * seeds):
        at, seed = divmod(num, seeds)
        status = (spoiled or {}).get(num, "complete")
        plan["arms"].append(
            {
                "num": num, "overrides": [], "name": f"{arms[at]}, seed={seed}", "arm": arms[at],
                "branches": [], "swept": {"t_mult": arms[at], "seed": str(seed)}, "seed": seed,
                "plan": {"budget_epochs": epochs, "aligned": True, "nearest_aligned_epochs": [],
                         "updates_per_epoch": 8},
            }
        )  # fmt: skip
        if status != "missing":
            _write_run(folder / str(num), num, 5 + 5 * (at % 2), epochs, status, tracking(num))
            path = folder / str(num) / "result.json"
            own = {key: plan["arms"][num][key] for key in ("name", "arm", "swept")}
            path.write_text(
                json.dumps(json.loads(path.read_text()) | own | {"config": {"seed": seed}})
            )
    (folder / "plan.json").write_text(json.dumps(plan))
    return results.read(folder)


def _write_run(folder: Path, num: int, cycle: int, epochs: int, status: str, tracking: str) -> None:
    folder.mkdir(parents=True)
    random = np.random.default_rng(num)
    lr = 0.05 * (1 + np.cos(np.pi * (np.arange(8 * epochs) / 8 % cycle) / cycle))
    np.save(folder / "lr.npy", lr)
    held = epochs if status == "complete" else epochs // 2
    acc = 98 - 60 * np.exp(-np.arange(1, held + 1) / 6) + random.normal(0, 0.3, held)
    rows = [
        {"step": 8 * epoch, "epoch": float(epoch), "lr": lr[8 * epoch - 1], "val/acc": acc[epoch - 1]}
        for epoch in range(1, held + 1)
    ]  # fmt: skip
    with (folder / "history.jsonl").open("w") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)
    restarts = list(range(cycle, epochs, cycle))
    done = status == "complete"
    result = {
        "status": status, "error": STATUSES.get(status, status), "fingerprint": "f" * 64,
        "plan": {"updates": 8 * epochs, "updates_per_epoch": 8, "aligned": True,
                 "restart_epochs": restarts, "lr_share_at_end": 0.001},
        "final": {"val/acc": acc[-1]} if done else {}, "best": {"val/acc": acc.max()},
        "test": {"test/acc": acc[-1] - 1} if done else {},
        "updates_trained": 8 * epochs - 40 * (num % 2), "updates_reused": 40 * (num % 2),
        "tracking": tracking, "seconds": {"total": [9.5, 10.25, 100.0, 2.0][num % 4]},
    }  # fmt: skip
    (folder / "result.json").write_text(json.dumps(result))


def make_verdict(runs: pl.DataFrame, **changes: Any) -> dict[str, Any]:
    """The second arm against the first, with every optional part."""
    first, second, *_ = runs["arm"].unique(maintain_order=True)
    seeds = runs.filter((pl.col("arm") == first) & (pl.col("status") == "complete"))
    pairs = [
        {"seed": row["seed"], "baseline": row["final"], "treatment": row["final"] + 0.1 * at,
         "difference": 0.1 * at}
        for at, row in enumerate(seeds.to_dicts())
    ]  # fmt: skip
    comparison = {
        "cell": "", "baseline": first, "treatment": second, "pairs": pairs, "n": len(pairs),
        "mean": 0.31, "sd": 0.2, "correlation": 0.4, "ci95": [0.1, 0.52], "ci90": [0.15, 0.47],
        "bca95": None, "p": 0.0313, "p_holm": 0.0313, "probability_of_improvement": 0.8,
        "verdict": "supported", "sentence": f"{second} is better.", "pairs_needed": None,
        "left_out": [{"name": f"{first}, seed=9", "status": "failed"}], "intention_to_treat": None,
    }  # fmt: skip
    figure = {"mean": 1.5, "ci95": [1.2, 1.8]}
    arm = {"arm": first, "runs": 4, "drop_points": figure, "correlation_with_lr": None,
           "recovery_epochs": {"median": 2.0, "recovered": 3, "of": 4},
           "best_position": {"lr_rank": 0.08, "cycles": 20, "p": 0.00001}}  # fmt: skip
    profile = [
        {"arm": name, "offset_epochs": offset / 2, "mean": -abs(offset), "low": None, "high": None}
        for name in (first, second)
        for offset in range(-4, 5)
    ]
    verdict = {
        "claim": {"factor": "scheduler.t_mult", "baseline": first, "treatments": [second],
                  "metric": "val/acc", "margin": 0.2, "level": 0.05, "seeds": [], "inferred": True,
                  "sha256": "c0ffee"},
        "claim_changed": False,
        "sentence": f"{second} beats {first} by 0.31 points.",
        "comparisons": [comparison],
        "phase": {"sentence": "It drops (-1.80 to -1.20), t-1.", "arms": [arm], "profile": profile},
        "anytime": [{"arm": first, "area": 90.1, "epochs_to": {"90": 4.0, "95": None}}],
        "snapshots": [{"arm": first, "members": m, "test_acc_mean": 97 + m, "sd": 0.1}
                      for m in (1, 2)],
    }  # fmt: skip
    return verdict | changes


# --- the browser ---------------------------------------------------------------------------------


@dataclass
class Seen:
    """What a page did beside showing itself."""

    requests: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    need(importlib.util.find_spec("playwright"), "needs playwright: pip install playwright")
    need(CHROMIUM.exists(), "needs /usr/bin/chromium: apt-get install chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(CHROMIUM), args=list(QUIET))
        yield browser
        browser.close()


@pytest.fixture
def show(browser: Browser) -> Iterator[Callable[..., Page]]:
    """Opens a report; at the end of the test it must have asked for nothing and complained of nothing."""
    contexts, seen = [], Seen()

    def dismiss(dialog: Dialog) -> None:
        seen.faults.append("dialog")
        dialog.dismiss()

    def open_page(path: Path, **settings: Any) -> Page:
        context = browser.new_context(**{"viewport": {"width": 1200, "height": 900}} | settings)
        contexts.append(context)
        page = context.new_page()
        page.on("request", lambda request: seen.requests.append(request.url))
        page.on("pageerror", lambda error: seen.faults.append(f"error: {error}"))
        page.on("console", lambda message: seen.faults.append(f"{message.type}: {message.text}"))
        page.on("dialog", dismiss)
        page.goto(path.as_uri(), timeout=120_000)  # on a busy machine; else a second
        page.wait_for_selector("html[data-drawn]", state="attached", timeout=120_000)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert seen.faults == []
    assert all(url.startswith("file://") for url in seen.requests)
    assert len(seen.requests) == len(contexts), f"only the document itself: {seen.requests}"


@pytest.fixture(scope="module")
def usual(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two arms, four seeds, a run of each kind that is not complete, a verdict with all its parts."""
    folder = tmp_path_factory.mktemp("usual")
    spoiled = {5: "failed", 6: "diverged", 7: "missing"}
    links = {0: "https://wandb.ai/me/p/runs/a", 1: "javascript:alert(1)", 2: "/tmp/wandb/offline-1"}
    runs = write_sweep(
        folder, ["t_mult=1", "t_mult=2"], 4, spoiled=spoiled,
        tracking=lambda num: links.get(num, ""),
    )  # fmt: skip
    return report.write_page(folder, runs, make_verdict(runs), ABOUT)


def marks(page: Page, chart: str, kind: str) -> int:
    """How many shapes a chart has of a kind of mark."""
    shapes = page.locator(f'[data-chart="{chart}"] svg .mark-{kind}.role-mark path')
    return sum(bool(shape.get_attribute("d")) for shape in shapes.all())


def column(page: Page, number: int) -> list[str]:
    return page.locator(f"#runs tbody tr > *:nth-child({number})").all_inner_texts()


def background(page: Page) -> str:
    color: str = page.evaluate("getComputedStyle(document.body).backgroundColor")
    return color


def test_the_page_shows_verdict_charts_and_tables(usual: Path, show: Callable[..., Page]) -> None:
    page = show(usual)
    assert page.locator("#words").inner_text() == "t_mult=2 beats t_mult=1 by 0.31 points."
    said = page.locator("#answer").inner_text().split("\n")
    assert said == ["supported", "+0.31 points", "95 % interval +0.10 to +0.52, 4 pairs"]
    for chart in ("verdict", "overview", "ends", "phase"):
        box = page.locator(f'[data-chart="{chart}"] svg.marks').bounding_box()
        assert box
        assert box["width"] > 600, chart
        assert box["height"] > 50, chart
    assert marks(page, "verdict", "symbol") == 1 + 4, "the mean and a dot a seed"
    text = page.inner_text("main")
    for part in (
        "Phase: accuracy around the LR's minima", "It drops (−1.80 to −1.20), t-1.",
        "Anytime: best so far", "Snapshot ensembles",
        "not by all", "80 %", "c0ffee", "torch 2.14.1", "06a92dd",
        "python train.py -m scheduler.t_mult=1,2", "Left out: t_mult=1, seed=9 (failed)",
        "3 of 8 runs are not complete: 1 failed, 1 diverged, 1 missing",
    ):  # fmt: skip
        assert part in text


def test_holes_are_rows_with_their_reasons(usual: Path, show: Callable[..., Page]) -> None:
    page = show(usual)
    incomplete = page.locator("#runs tr.incomplete").all_inner_texts()
    reasons = [
        "failed: OSError: disk full",
        "diverged: loss is not finite",
        "missing: left no result",
    ]
    assert len(incomplete) == 3
    for row, reason in zip(incomplete, reasons, strict=True):
        assert reason in row
    assert page.locator("#runs tr").count() == 1 + 8


def test_only_web_addresses_are_links(usual: Path, show: Callable[..., Page]) -> None:
    page = show(usual)
    links = [link.get_attribute("href") for link in page.locator("a[href]").all()]
    assert [link for link in links if link != "#"] == ["https://wandb.ai/me/p/runs/a"]
    assert column(page, 9)[1:3] == ["javascript:alert(1)", "…/offline-1"]
    assert column(page, 9)[3] == f"{usual.parent.name}/3", "without tracking, the folder"


def test_headers_sort_numbers_as_numbers_and_toggle(usual: Path, show: Callable[..., Page]) -> None:
    page = show(usual)
    head = page.locator("#runs thead th", has_text="seconds")
    assert head.get_attribute("aria-sort") == "none"
    head.locator("button").focus()
    page.keyboard.press("Enter")
    up = ["2.0", "9.5", "9.5", "10.2", "10.2", "100.0", "100.0", "–"]
    assert head.get_attribute("aria-sort") == "ascending"
    assert column(page, 7) == up
    page.keyboard.press("Enter")
    assert head.get_attribute("aria-sort") == "descending"
    assert column(page, 7) == [*reversed(up[:-1]), "–"], "what is missing stays last"
    page.locator("#runs thead th button", has_text="status").click()
    assert head.get_attribute("aria-sort") == "none"
    assert [status.partition(":")[0] for status in column(page, 3)] == [
        *["complete"] * 5, "diverged", "failed", "missing",
    ]  # fmt: skip


def test_the_legend_switches_arms_off(usual: Path, show: Callable[..., Page]) -> None:
    page = show(usual)
    lines, areas = marks(page, "overview", "line"), marks(page, "overview", "area")
    assert (lines, areas) == (2 + 2 + 7, 2), "means, LR curves and runs; bands"
    button = page.locator("button[data-arm='0']")
    button.click()
    assert button.get_attribute("aria-pressed") == "false"
    page.wait_for_timeout(100)
    assert (marks(page, "overview", "line"), marks(page, "overview", "area")) == (1 + 1 + 3, 1)
    assert marks(page, "phase", "line") == marks(page, "ends", "line") == 1
    page.locator("#singles").uncheck()
    page.wait_for_timeout(100)
    assert marks(page, "overview", "line") == 2
    button.click()
    page.wait_for_timeout(100)
    assert marks(page, "overview", "line") == 4


def test_hover_tells_all_arms_and_a_click_picks_a_run(
    usual: Path, show: Callable[..., Page]
) -> None:
    page = show(usual)
    chart = page.locator('[data-chart="overview"] svg.marks')
    chart.scroll_into_view_if_needed()
    box = chart.bounding_box()
    assert box
    page.mouse.move(box["x"] + box["width"] * 0.6, box["y"] + 200)
    page.wait_for_timeout(200)
    reported = page.locator("#vg-tooltip-element").inner_text()
    assert re.search(r"t_mult=1\s+\d\d\.\d\d ± 0\.\d\d \(4\)", reported)
    assert "t_mult=2" in reported
    runs = page.locator('[data-chart="overview"] svg .runs_0_marks path')
    before = runs.first.get_attribute("stroke-width")
    runs.first.dispatch_event("click")
    page.wait_for_timeout(100)
    widths = [run.get_attribute("stroke-width") for run in runs.all()]
    assert widths.count(before) == len(widths) - 1


def test_dark_and_light(usual: Path, show: Callable[..., Page]) -> None:
    light, dark = (show(usual, color_scheme=scheme) for scheme in ("light", "dark"))
    assert background(light) == "rgb(255, 255, 255)"
    assert background(dark) == "rgb(21, 23, 26)"
    assert inks(light) == {"rgb(27, 27, 27)"}
    assert inks(dark) == {"rgb(232, 232, 232)"}


def inks(page: Page) -> set[str]:
    texts = page.locator('[data-chart="overview"] svg text:visible').all()
    return {str(text.evaluate("element => getComputedStyle(element).fill")) for text in texts}


def test_the_names_of_panels_are_legible_in_the_dark(
    tmp_path: Path, show: Callable[..., Page]
) -> None:
    runs = write_sweep(tmp_path, [f"arm={at}" for at in range(charts.FEW + 1)], 1)
    page = show(report.write_page(tmp_path, runs, None, ABOUT), color_scheme="dark")
    assert inks(page) == {"rgb(232, 232, 232)"}


def test_on_paper_it_is_light(usual: Path, show: Callable[..., Page]) -> None:
    page = show(usual, color_scheme="dark")
    page.emulate_media(media="print")
    assert background(page) == "rgb(255, 255, 255)"
    assert not page.locator(".tools").is_visible()
    assert page.pdf(format="A4").startswith(b"%PDF")


def test_a_phone_scrolls_tables_not_the_page(usual: Path, show: Callable[..., Page]) -> None:
    page = show(usual, viewport={"width": 360, "height": 740})
    assert page.evaluate("document.documentElement.scrollWidth") == 360
    assert page.locator("#runs").evaluate("table => table.parentElement.scrollWidth") > 360
    box = page.locator('[data-chart="overview"] svg.marks').bounding_box()
    assert box
    assert box["width"] <= 360 - 2 * 16


@pytest.mark.parametrize("width", [360, 400, 1100, 1280])
def test_tables_that_scroll_say_so_and_no_others(
    usual: Path, show: Callable[..., Page], width: int
) -> None:
    page = show(usual, viewport={"width": width, "height": 740})
    scrolls = (
        "box => [box.scrollWidth > box.clientWidth + 1, box.scrollHeight > box.clientHeight + 1]"
    )
    for box in page.locator(".scroll:visible").all():
        hint = box.locator("xpath=preceding-sibling::p[1]")
        across, down = box.evaluate(scrolls)
        assert hint.is_visible() == (across or down)
        if across or down:
            assert ("columns to the right" in hint.inner_text()) == across
            assert ("rows below" in hint.inner_text()) == down
    if width >= 1100:
        assert page.locator(".hint:visible").count() == 0, "nothing is cut"
    assert page.evaluate("document.documentElement.scrollWidth") == width


def test_the_first_screen_holds_the_answer_and_what_to_do(
    usual: Path, show: Callable[..., Page]
) -> None:
    page = show(usual, viewport={"width": 1280, "height": 720})
    for part in (".trained", "h1", "#answer .word", "#answer .measured", ".next", ".qualified"):
        box = page.locator(part).first.bounding_box()
        assert box, part
        assert box["y"] + box["height"] < 720, part
    sizes = [
        page.locator(part).evaluate("element => parseFloat(getComputedStyle(element).fontSize)")
        for part in ("#answer .word", "h1", "#answer .measured", ".trained")
    ]
    assert sizes == sorted(sizes, reverse=True), "the word first, the number second"


def test_one_run_has_a_page_without_empty_tables(tmp_path: Path, show: Callable[..., Page]) -> None:
    runs = write_sweep(tmp_path, ["run"], 1)
    page = show(report.write_page(tmp_path, runs, None, ABOUT))
    assert page.locator("h1").inner_text().endswith(" % val/acc")
    assert page.locator("#answer .word").inner_text() == "complete"
    assert page.locator("h2").all_inner_texts() == [
        "Validation accuracy and learning rate by epoch", "Runs", "How it was made",
    ]  # fmt: skip
    assert page.locator("tbody tr").count() == 1


def test_charts_follow_the_window(usual: Path, show: Callable[..., Page]) -> None:
    page = show(usual)
    page.set_viewport_size({"width": 500, "height": 900})
    page.wait_for_timeout(1000)
    box = page.locator('[data-chart="overview"] svg.marks').bounding_box()
    assert box
    assert 400 < box["width"] <= 500


@pytest.mark.slow
def test_seven_arms_fit_on_any_screen(tmp_path: Path, show: Callable[..., Page]) -> None:
    arms = [f"arm=a schedule of number {at}" for at in range(7)]
    runs = write_sweep(tmp_path, arms, 2)
    path = report.write_page(tmp_path, runs, make_verdict(runs), ABOUT)
    for width in (400, 1100, 1280):
        page = show(path, viewport={"width": width, "height": 900})
        fits = "box => box.scrollWidth <= box.clientWidth"
        charts = page.locator("[data-chart]").all()
        assert len(charts) == 4
        assert [chart.evaluate(fits) for chart in charts] == [True] * 4
        assert marks(page, "overview", "line") == 7 + 7 * 7, "means, over those of all arms"
        assert page.locator("[data-arm]").count() == 0


def test_hostile_names_are_text(tmp_path: Path, show: Callable[..., Page]) -> None:
    arms = [f"arm={name}" for name in HOSTILE]
    links = [f"https://x/{HOSTILE[0]}", HOSTILE[1], f"http://x/{HOSTILE[1]}", HOSTILE[3]]
    runs = write_sweep(
        tmp_path, arms, 2, spoiled={1: HOSTILE[0], 3: "failed"},
        tracking=lambda num: links[num // 2],
    )  # fmt: skip
    verdict = make_verdict(runs, sentence=HOSTILE[1])
    verdict["comparisons"].append(verdict["comparisons"][0] | {"cell": HOSTILE[1]})
    about = dict.fromkeys(ABOUT, HOSTILE[1]) | {
        "commands": list(HOSTILE), "warnings": list(HOSTILE), "versions": {HOSTILE[0]: HOSTILE[1]},
    }  # fmt: skip
    page = show(report.write_page(tmp_path, runs, verdict, about))
    assert page.locator("#words").inner_text() == HOSTILE[1]
    assert page.locator("img").count() == 0
    assert page.locator("script").count() == 4, "specs, vega, the page's own two"
    names = column(page, 1)
    assert all(f"arm={name}" in names[2 * at] for at, name in enumerate(HOSTILE[:3]))
    chart = page.locator('[data-chart="overview"] svg.marks')
    chart.scroll_into_view_if_needed()
    box = chart.bounding_box()
    assert box
    for share in (0.3, 0.4, 0.5):
        page.mouse.move(box["x"] + box["width"] * share, box["y"] + 200)
        page.wait_for_timeout(100)
    assert HOSTILE[0] in page.locator("#vg-tooltip-element").inner_text()
    for button in page.locator("[data-arm]").all():
        button.click()
    assert page.evaluate("window.hacked") is None


def test_a_changed_claim_is_said_first(tmp_path: Path, show: Callable[..., Page]) -> None:
    runs = write_sweep(tmp_path, ["t_mult=1", "t_mult=2"], 2)
    page = show(report.write_page(tmp_path, runs, make_verdict(runs, claim_changed=True), ABOUT))
    first = page.inner_text("main").strip().splitlines()[0]
    assert first.startswith("The claim was changed after the plan was written")


@pytest.mark.parametrize(
    ("spoiled", "said"),
    [
        ({0: "missing", 1: "missing"}, "2 of 2 runs are not complete: 2 missing."),
        ({0: "failed", 1: "missing"}, "1 failed, 1 missing. run, seed=0: OSError: disk full"),
        ({}, "nothing was compared"),
    ],
    ids=["nothing began", "one failed", "no claim"],
)
def test_without_a_verdict(
    tmp_path: Path, show: Callable[..., Page], spoiled: dict[int, str], said: str
) -> None:
    runs = write_sweep(tmp_path, ["run"], 2, spoiled=spoiled)
    page = show(report.write_page(tmp_path, runs, None, ABOUT))
    text = page.inner_text("main")
    assert "no verdict" in text
    assert said in text
    begun = len(spoiled) < 2 or "failed" in spoiled.values()
    assert page.locator('[data-chart="overview"] svg.marks').count() == begun
    assert page.locator("#runs tbody tr").count() == 2


def test_a_verdict_over_no_pair(tmp_path: Path, show: Callable[..., Page]) -> None:
    runs = write_sweep(tmp_path, ["t_mult=1", "t_mult=2"], 1, spoiled={0: "missing", 1: "missing"})
    verdict = make_verdict(runs, phase=None, anytime=None, snapshots=None)
    nothing = dict.fromkeys(
        ("mean", "sd", "correlation", "ci95", "ci90", "p", "p_holm", "probability_of_improvement")
    )
    verdict["comparisons"][0] |= nothing
    page = show(report.write_page(tmp_path, runs, verdict, ABOUT))
    assert page.locator("#answer .measured").count() == 0
    assert page.locator('[data-chart="verdict"] svg.marks').count() == 1


def test_a_run_under_way_is_drawn_up_to_its_last_whole_line(
    tmp_path: Path, show: Callable[..., Page]
) -> None:
    runs = write_sweep(tmp_path, ["run"], 2)
    (tmp_path / "1" / "result.json").unlink()
    with (tmp_path / "1" / "history.jsonl").open("a") as file:
        file.write('{"step": 168, "epo')
    runs = results.read(tmp_path)
    page = show(report.write_page(tmp_path, runs, None, ABOUT))
    assert marks(page, "overview", "line") == 1 + 1 + 2
    before = len(charts.evaluations(runs))
    assert before == 40


def test_a_table_with_fewer_columns_has_holes(tmp_path: Path) -> None:
    runs = write_sweep(tmp_path, ["a", "b"], 2).select("folder", "name", "arm", "status")
    text = report.write_page(tmp_path, runs, None, {"title": "old"}).read_text()
    assert "a, seed=1" in text
    assert "No run is planned" not in text
    assert "There is no run to report" in report.render(pl.DataFrame(), None, ABOUT)


def test_numbers_that_json_lacks_are_holes(tmp_path: Path) -> None:
    runs = write_sweep(tmp_path, ["a", "b"], 2)
    verdict = make_verdict(runs)
    verdict["comparisons"][0]["mean"] = float("nan")
    assert "NaN" not in report.render(runs, verdict, ABOUT).partition('id="specs"')[2][:20_000]


# --- looks and tuning ----------------------------------------------------------------------------

TUNING: dict[str, Any] = {
    "keys": ["optimizer.lr"], "grid": [0.1, 0.05], "seeds": [1000, 1001, 1002], "sha256": "feed" * 16,
    "runs": 21, "seconds": 1234.4,
    "arms": [
        {"arm": "t_mult=1", "value": "0.05", "best": "0.1", "edge": False,
         "tried": {"0.1": [92.0, 92.0, 95.0], "0.05": [92.0, 92.5, 93.0], "0.2": [90.0, None, None]}},
        {"arm": "t_mult=2", "value": "0.4", "best": "0.4", "edge": True,
         "tried": {"0.1": [91.0] * 3, "0.05": [90.0] * 3, "0.2": [92.0] * 3, "0.4": [93.0] * 3}},
    ],
}  # fmt: skip


def with_looks(cell: str = "") -> dict[str, Any]:
    """Six comparisons in three cells: decided, open, undecidable ones."""
    runs = [
        row
        for number in range(3)
        for row in (
            *rows([OPEN, GAIN[:6], OPEN][number], cell=f"{cell}{number}"),
            *arm("3", [GAIN[:6], HOPELESS, OPEN][number], cell=f"{cell}{number}"),
        )
    ]
    verdict = judged(runs, TWO)
    verdict["looks"] |= {"runs": 14, "seconds": 26.1}
    return verdict


def cells_of(text: str, kind: str) -> list[str]:
    return re.findall(rf"<{kind}[^>]*>(.*?)</{kind}>", text)


def test_with_looks_the_page_says_what_was_asked_and_spared(tmp_path: Path) -> None:
    text = report.render(write_sweep(tmp_path, ["a", "b"], 1), with_looks(), ABOUT)
    body = text.partition('id="specs"')[0]
    assert "Asked at each look (claim.decide=zero): is the difference above zero" in body
    assert "Looks taken: 4 of 4, the last with 13 of at most 13 pairs." in body
    assert "14 planned runs were not needed, which saved about 26 s of training." in body
    assert "(docs/verdict.md)" in body
    assert "must also hold among all comparisons" in body
    assert "judged at 6, 8, 10, 13 pairs until decided (zero)" in body
    one = judged(rows(GAIN[:6]), CLAIM)
    single = report.render(write_sweep(tmp_path / "one", ["a", "b"], 1), one, ABOUT)
    assert "repeated 95 % interval +0.39 to +0.61, 6 pairs" in single
    assert "must also hold among" not in single


def test_columns_that_looks_do_not_have_are_left_out(tmp_path: Path) -> None:
    runs = write_sweep(tmp_path, ["a", "b"], 2)
    columns = {}
    for name, verdict in {"fixed": make_verdict(runs), "looks": with_looks()}.items():
        text = report.render(runs, verdict, ABOUT).partition('aria-label="Comparisons"')[2]
        head, _, body = text.partition("</table>")[0].partition("<tbody>")
        columns[name] = cells_of(head, "th")
        for row in body.split("</tr>")[:-1]:
            assert len(cells_of(row, "t[hd]")) == len(columns[name])
    absent = ["p", "p (adjusted)", "pairs needed"]
    assert [name for name in columns["fixed"] if name not in columns["looks"]] == [
        "95 % t interval", *absent,
    ]  # fmt: skip
    assert [name for name in columns["looks"] if name not in columns["fixed"]] == [
        "looks", "repeated 95 % interval",
    ]  # fmt: skip


def test_without_looks_and_tuning_nothing_is_said_of_them(tmp_path: Path) -> None:
    runs = write_sweep(tmp_path, ["a", "b"], 2)
    text = report.render(runs, make_verdict(runs, tuning=[]), ABOUT).partition('id="specs"')[0]
    assert "Looks" not in text
    assert "Tuning" not in text
    assert "repeated" not in text


def test_before_the_first_look_there_is_no_chart_of_looks(tmp_path: Path) -> None:
    verdict = judged(rows(OPEN[:4]), CLAIM)
    text = report.render(write_sweep(tmp_path, ["a", "b"], 2), verdict, ABOUT)
    assert "Looks taken: 0 of 4; the next takes 6 pairs." in text
    assert 'data-chart="looks"' not in text


@pytest.mark.slow
def test_looks_are_drawn_a_panel_a_comparison_on_any_screen(
    tmp_path: Path, show: Callable[..., Page]
) -> None:
    runs = write_sweep(tmp_path, ["t_mult=1", "t_mult=2"], 1)
    path = report.write_page(tmp_path, runs, with_looks(HOSTILE[2]), ABOUT)
    for width in (1200, 360):
        page = show(path, viewport={"width": width, "height": 900})
        assert page.evaluate("document.documentElement.scrollWidth") == width
        chart = page.locator('[data-chart="looks"]')
        box = chart.locator("svg.marks").bounding_box()
        assert box
        assert width * 0.6 < box["width"] <= width
        shown = chart.locator("svg.marks").text_content()
        assert shown
        for part in ("a mean above shows a gain", "decided with 6 pairs: supported",
                     "stopped with 6 pairs: undecidable", "all 13 pairs: inconclusive"):  # fmt: skip
            assert part in shown
        intervals = sum(len(one["path"]) for one in with_looks()["comparisons"])
        rings = 6
        assert marks(page, "looks", "symbol") == intervals + rings
    assert page.evaluate("window.hacked") is None


def test_tuning_is_a_table_of_arms_by_values(tmp_path: Path) -> None:
    runs = write_sweep(tmp_path, ["a", "b"], 2)
    text = report.render(runs, make_verdict(runs, tuning=[TUNING]), ABOUT)
    assert (
        "optimizer.lr was chosen by val/acc on 3 other seeds"
        in text.partition("Paired differences")[0]
    )
    table, _, note = text.partition('aria-label="Tuning"')[2].partition("</table>")
    head, first, second = table.split("<tr>")[1:]
    assert cells_of(head, "th") == [
        "arm, by optimizer.lr", "0.05", "0.1", "0.2", "0.4", "chosen",
    ]  # fmt: skip
    assert cells_of(first, "td") == [
        "<strong>92.50 ± 0.29<br>chosen</strong>",
        '93.00 ± 1.00<br><span class="soft">best mean</span>',
        '2 of 3 diverged<br><span class="soft">ruled out</span>', "–",
        "<strong>0.05</strong>; nothing smaller was tried",
    ]  # fmt: skip
    assert cells_of(second, "td")[:4] == [
        "90.00 ± 0.00", "91.00 ± 0.00", "92.00 ± 0.00", "<strong>93.00 ± 0.00<br>chosen</strong>",
    ]  # fmt: skip
    assert cells_of(second, "td")[4].startswith(
        "<strong>0.4</strong>; the best, 0.4, is at the edge"
    )
    assert "over 3 seeds, 1000 to 1002, that the claim does not use" in note
    assert "the smallest value whose mean is within one standard error" in note
    assert "Cost: 21 runs, 1,234 s." in note
    assert f"<dd>{TUNING['sha256']}</dd>" in text


def test_values_that_are_no_numbers_stand_as_they_were_given() -> None:
    tried = {"0.1, nesterov": [90.0, 91.0], "0.05, plain": [92.0, 93.0]}
    arms = [
        {"arm": "a", "value": "0.05, plain", "best": "0.05, plain", "edge": False, "tried": tried}
    ]
    table = report.tuning_table(TUNING | {"keys": ["x", "y"], "arms": arms})
    assert table["values"] == ["0.1, nesterov", "0.05, plain"]
    assert [cell["mark"] for cell in table["rows"][0]["cells"]] == ["", "chosen"]
    assert not table["numbers"]


@pytest.mark.slow
def test_a_hundred_runs_fit(tmp_path: Path, show: Callable[..., Page]) -> None:
    arms = [f"t_mult={number}" for number in range(1, 11)]
    runs = write_sweep(tmp_path, arms, 10, epochs=300)
    path = report.write_page(tmp_path, runs, make_verdict(runs), ABOUT)
    assert path.stat().st_size <= 3e6
    page = show(path)
    assert marks(page, "overview", "line") == 10 + 10 * 10, "means, over those of all arms"
    assert page.locator("#runs tbody tr").count() == 100


@pytest.mark.parametrize(
    ("changes", "cells"),
    [
        ({"p": 0.00009, "p_adjusted": 0.0001}, ["&lt; 0.0001", "0.0001"]),
        ({"p": 0.0999, "p_adjusted": 0.1}, ["0.1", "0.10"]),
        ({"p": 0.004321, "p_adjusted": None}, ["0.0043", "–"]),
        ({"mean": -0.001, "sd": 0.0049}, ["+0.00", "0.00"]),
        ({"mean": -0.005001, "sd": 1.0}, ["−0.01", "1.00"]),
        ({"ci95": [-0.1, 0.004], "test": None}, ["−0.10 to +0.00", "–"]),
        ({"ci95": [float("nan"), 1]}, ["–"]),
        ({"n": 5, "planned": 6, "test": {"mean": -0.25}}, ["5 of 6", "−0.25"]),
        (
            {
                "probability_of_improvement": {"share": 0.8, "low": 0.44, "high": 0.955},
                "pairs_needed": {"above 0": 31, "no gain that matters": 20},
            },
            ['80 %<br><span class="soft">44 % to 96 %</span>', "–"],
        ),
        pytest.param(
            {"probability_of_improvement": 0.125, "pairs_needed": 1001},
            ["12 %", "&gt; 1000"],
            id="a verdict.json of version 1",
        ),
    ],
)
def test_numbers_are_rounded_as_they_are_read(
    tmp_path: Path, changes: dict[str, Any], cells: list[str]
) -> None:
    runs = write_sweep(tmp_path, ["a", "b"], 2)
    verdict = make_verdict(runs)
    verdict["comparisons"][0] |= changes
    row = report.render(runs, verdict, ABOUT).partition('<td class="name">supported</td>')[2]
    shown = re.findall(r'<td class="number">(.*?)</td>', row.partition("</tr>")[0])
    columns = ["n", "mean", "ci95", "test", "sd", "p", "p_adjusted",
               "probability_of_improvement", "pairs_needed"]  # fmt: skip
    assert [shown[columns.index(name)] for name in changes if name in columns] == cells


def test_one_answer_over_all_cells_is_a_table(tmp_path: Path) -> None:
    runs = write_sweep(tmp_path, ["a", "b"], 2)
    verdict = make_verdict(runs)
    assert "over all cells" not in report.render(runs, verdict, ABOUT)
    verdict["over_cells"] = [
        {"treatment": "2", "cells": 3, "mean": 0.4, "ci95": [-0.65, 1.46], "between_cells_sd": 0.4,
         "i2": 0.87, "verdict": "inconclusive"}
    ]  # fmt: skip
    page = report.render(runs, verdict, ABOUT)
    row = page.partition('<th scope="row">2 against ')[2].partition("</tr>")[0]
    assert re.findall(r"<td.*?>(.*?)</td>", row) == [
        "inconclusive", "3", "+0.40", "−0.65 to +1.46", "0.40", "87 %",
    ]  # fmt: skip


def test_a_row_of_a_run_says_what_was_there_already(tmp_path: Path) -> None:
    text = report.render(write_sweep(tmp_path, ["a", "b"], 2), None, ABOUT)
    assert re.findall(r'title="(\d+ of 160) updates"', text) == ["0 of 160", "40 of 160"] * 2
    assert re.findall(r'" title="40 of 160 updates">(.*?)<', text) == ["25 %"] * 2


def test_other_images_are_a_table_with_the_reason_where_there_is_no_interval() -> None:
    runs = pl.DataFrame(
        {"arm": ["t_mult=1", "t_mult=2"], "folder": ["1", "2"], "status": ["failed"] * 2}
    )
    verdict = make_verdict(runs)
    assert "Other images" not in report.render(runs, verdict, ABOUT)
    verdict["comparisons"][0]["images"] = {
        "val": {
            "pairs": 3, "images": 288, "mean": 0.512, "seeds95": [0.3, 0.724],
            "ci95": [-0.1, 1.124], "shares": {"seeds": 0.25, "images": 0.65, "remainder": 0.1},
            "half_width": {"now": 0.612, "seeds": 0.55, "images": 0.45}, "more": "images",
        },
        "test": {"ci95": None, "reason": "6 of 6 runs kept <no> bits"},
    }  # fmt: skip
    page = report.render(runs, verdict, ABOUT)
    cells = ["288", "+0.51", "+0.30 to +0.72", "−0.10 to +1.12", "25 · 65 · 10 %"]
    cells += ["0.61", "0.55", "0.45"]
    row = "".join(f'<td class="number">{cell}</td>' for cell in cells)
    assert f"<td>val</td>{row}</tr>" in page
    assert '<td>test</td><td colspan="8">6 of 6 runs kept &lt;no&gt; bits</td></tr>' in page


def test_pairs_are_listed_unless_there_are_too_many(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = write_sweep(tmp_path, ["a", "b"], 4)

    def listed() -> list[str]:
        text = report.render(runs, make_verdict(runs), ABOUT)
        return re.findall(r"<td class=\"number\">(\S0\.\d00)</td></tr>", text)

    assert listed() == ["+0.000", "+0.100", "+0.200", "+0.300"]
    monkeypatch.setattr(report, "_MOST_PAIRS", 3)
    assert listed() == []


def test_where_a_cycles_accuracy_is_best_and_what_older_verdicts_say_of_it(tmp_path: Path) -> None:
    runs = write_sweep(tmp_path, ["t_mult=1", "t_mult=2"], 1)
    verdict = make_verdict(runs)
    text = report.write_page(tmp_path, runs, verdict, ABOUT).read_text()
    cells = [f'<td class="number">{value}</td>' for value in ("8 %", "50 %", "&lt; 0.0001")]
    assert "".join(cells) in text
    assert "LR rank of the best" in text
    (arm,) = verdict["phase"]["arms"]
    del arm["best_position"]
    arm["maxima_at_minima"] = {"share": 0.8, "null_share": 0.3, "p": 0.02}
    text = report.write_page(tmp_path, runs, verdict, ABOUT).read_text()
    cells = [f'<td class="number">{value}</td>' for value in ("80 %", "30 %", "0.02")]
    assert "".join(cells) in text
    assert "maxima at minima" in text
    assert "LR rank" not in text


def test_the_code_of_the_charts_is_made_once_for_all_commands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path / "cache"))
    made = iter(name * 2 * report._LEAST_BUNDLE for name in "abcdefg")
    monkeypatch.setattr("vl_convert.javascript_bundle", lambda: next(made))

    def twice() -> str:
        """What two commands have, in one letter."""
        first, second = (report._bundle.__wrapped__() for _ in range(2))
        assert first == second
        return first[0]

    assert twice() == "a"
    (path,) = (tmp_path / "cache").iterdir()
    path.write_text("damaged")
    assert twice() == "b"
    script = b"</script><script>" + b"x" * 2 * report._LEAST_BUNDLE
    for foreign in (b"", b"\xff" * 2 * report._LEAST_BUNDLE, script):
        write_checked(path, foreign)
        assert twice() in "cde"
    path.chmod(0o666)
    assert report._bundle.__wrapped__()[0] == "f", "others may have written it"
    path.unlink()
    path.mkdir()
    assert report._bundle.__wrapped__()[0] == "g", "a cache that cannot be used costs time alone"


def test_the_parts_of_a_variance_add_up() -> None:
    parts = ("seeds", "images", "remainder")
    assert report.variance_parts(dict(zip(parts, (0.0, 0.0, 1.0), strict=True))) == "0 · 0 · 100 %"
    assert report.variance_parts(dict.fromkeys(parts, 1 / 3)) == "33 · 34 · 33 %"
