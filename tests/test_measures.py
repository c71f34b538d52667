"""Which metrics a claim may be about, and what their numbers mean."""

from __future__ import annotations

import pytest

from harness.config import measures, registry
from harness.config.errors import ConfigError
from harness.config.measures import Measure
from harness.config.schema import Metric


class Calibration(Metric):
    better = "lower"
    unit = "%"


@pytest.fixture(autouse=True)
def calibration(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(registry.METRICS, "calibration", Calibration)


@pytest.mark.parametrize(
    ("metric", "measure"),
    [
        ("val/acc", Measure("higher", "%")),
        ("test/acc", Measure("higher", "%")),
        ("val/loss", Measure("lower", "")),
        ("test/calibration", Measure("lower", "%")),
    ],
)
def test_direction_and_unit_come_with_the_metric(metric: str, measure: Measure) -> None:
    assert measures.of_claim(metric, ["calibration"]) == measure


@pytest.mark.parametrize(
    ("metric", "metrics", "line"),
    [
        (
            "val/accc",
            [],
            "did you mean val/acc? choose from val/acc, test/acc, val/loss, test/loss",
        ),
        ("acc", [], "did you mean val/acc?"),
        ("train/loss", [], "did you mean val/loss?"),
        ("val/calibration", [], "is not evaluated; add metrics=[calibration]"),
        ("val/calibration", ["f1"], "is not evaluated; add metrics=[f1,calibration]"),
        ("val/calibratio", ["calibration"], "did you mean val/calibration?"),
    ],
)
def test_what_is_no_metric_is_one_line(
    monkeypatch: pytest.MonkeyPatch, metric: str, metrics: list[str], line: str
) -> None:
    monkeypatch.setitem(registry.METRICS, "f1", Calibration)
    with pytest.raises(ConfigError) as error:
        measures.of_claim(metric, metrics)
    assert str(error.value).startswith(f"claim.metric={metric}: ")
    assert line in str(error.value)


def test_what_result_json_has_of_the_metrics() -> None:
    assert measures.described(["calibration"]) == {
        "acc": {"better": "higher", "unit": "%"},
        "loss": {"better": "lower", "unit": ""},
        "calibration": {"better": "lower", "unit": "%"},
    }


@pytest.mark.parametrize(("better", "unit"), [("more", ""), ("lower", "'"), ("lower", "x" * 17)])
def test_what_is_no_direction_or_unit_is_refused(better: str, unit: str) -> None:
    with pytest.raises(ValueError, match=r"^(better|unit)="):
        Measure(better, unit)
