"""What a run came to, as `result.json` holds it."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from harness.config.errors import ConfigError
from harness.files import read_json, write_json
from harness.runs.signals import RunInterruptedError
from harness.training.distributed import PeerLostError
from harness.training.loop import Row

FILE = "result.json"


@dataclass(frozen=True)
class Complete:
    """The run reached the end of its LR plan; `weights_sha256` is the hash of its weights there."""

    weights_sha256: str
    error: None = None


@dataclass(frozen=True)
class Diverged:
    """A loss, a metric or a weight was not finite."""

    error: str


@dataclass(frozen=True)
class Interrupted:
    """A signal, or the loss of another process, stopped the run; the same command goes on."""

    error: str


@dataclass(frozen=True)
class Failed:
    """Any other error; none if the program was ended before it could say one.

    `refused`: the network cannot be built, which follows from the configuration.
    """

    error: str | None = None
    refused: bool = False


class NetworkRefusedError(ConfigError):
    """The network of the configuration cannot be built, or does not fit the images."""


Outcome = Complete | Diverged | Interrupted | Failed


def outcome_of(error: BaseException) -> Outcome:
    """Return how a run ends that raises `error`."""
    match error:
        case RunInterruptedError():
            return Interrupted(f"stopped by {error.signal}")
        case KeyboardInterrupt():
            return Interrupted("stopped by SIGINT")
        case PeerLostError():
            return Interrupted(str(error))
        case Exception():
            reason = str(error).strip() or type(error).__name__
            return Failed(reason, isinstance(error, NetworkRefusedError))
    return Failed()


@dataclass(frozen=True)
class Identity:
    """What was trained, on which images and in which arithmetic."""

    run_id: str
    fingerprint: str
    plan: dict[str, Any]  # `LRPlan.describe`
    numerics: dict[str, Any]
    data_sha256: str
    test_sha256: str | None
    images: dict[str, int]  # of each of the sets train, val and test


@dataclass
class Provenance:
    """Where the run's weights come from: from `parent`, a checkpoint, and from its own updates.

    `commit` is that of the program that made the last update, `dirty` whether its files were changed
    since; None where that is not known.
    """

    parent: str | None
    updates_reused: int
    seconds_reused: float
    exact: bool  # one machine's arithmetic made it all
    updates_trained: int = 0
    commit: str | None = None
    dirty: bool | None = None


@dataclass(frozen=True)
class Evaluation:
    """Metrics by name; `missing` says why there are none."""

    values: Row
    missing: str | None = None


@dataclass
class RunResult:
    """All that `result.json` says. `identity` and `provenance` are None until the run has got so far.

    `evaluations` has `final` and `best` (of the history, by val/acc) and `test`, each once it is made. `metrics` has by
    name which is `better`, the `unit`, and, once there is an evaluation, the `best` on the validation images.
    """

    name: str
    arm: str
    group: str | None
    config: dict[str, Any]
    overrides: list[str]
    swept: dict[str, str]
    claim_sha256: str | None
    restarts: int
    outcome: Outcome = field(default_factory=Failed)
    identity: Identity | None = None
    provenance: Provenance | None = None
    evaluations: dict[str, Evaluation] = field(default_factory=dict)
    tracking: str | None = None  # W&B's page or folder; empty without tracking
    seconds: dict[str, float] = field(default_factory=dict)  # by phase
    options: list[str] = field(default_factory=list)  # of the command: where the choices are
    metrics: dict[str, dict[str, Any]] = field(default_factory=dict)

    @property
    def status(self) -> str:
        return type(self.outcome).__name__.lower()

    def evaluated(self, rows: Sequence[Row]) -> None:
        """Note the last and the best evaluation of a history."""
        found = [row for row in rows if "val/acc" in row]
        best = max(found, key=lambda row: row["val/acc"], default={})
        self.evaluations |= {
            "final": Evaluation(found[-1] if found else {}),
            "best": Evaluation(best),
        }
        for name, own in self.metrics.items():
            if values := [row[f"val/{name}"] for row in found]:
                own["best"] = max(values) if own["better"] == "higher" else min(values)

    def to_json(self) -> dict[str, Any]:
        """Return the flat object of `result.json`."""
        document: dict[str, Any] = {"status": self.status, "error": self.outcome.error}
        document |= {name: getattr(self, name) for name in _HEAD}
        document |= {"options": self.options} if self.options else {}
        document |= {"metrics": self.metrics} if self.metrics else {}
        if self.identity:
            document |= vars(self.identity) | {"no_test": None}
        if self.provenance:
            document |= vars(self.provenance)
        for name, evaluation in self.evaluations.items():
            document[name] = evaluation.values
        if test := self.evaluations.get("test"):
            document["no_test"] = test.missing
        match self.outcome:
            case Complete(weights_sha256):
                document["weights_sha256"] = weights_sha256
            case Failed(refused=True):
                document["refused"] = True
        if self.tracking is not None:
            document["tracking"] = self.tracking
        return document | {"seconds": self.seconds}

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> Self:
        """Return the result of a complete run; what an earlier version did not record is None."""
        missing = {"test": document.get("no_test")}
        head: dict[str, Any] = {name: document.get(name) for name in _HEAD}
        return cls(
            **head,
            options=document.get("options", []),
            metrics=document.get("metrics", {}),
            outcome=Complete(document.get("weights_sha256", "")),
            identity=Identity(**_fields(Identity, document)),
            provenance=Provenance(**_fields(Provenance, document)),
            evaluations={
                name: Evaluation(document.get(name, {}), missing.get(name))
                for name in ("final", "best", "test")
            },
            tracking=document.get("tracking"),
            seconds=document.get("seconds", {}),
        )

    def write(self, folder: Path) -> None:
        write_json(folder / FILE, self.to_json())


def _fields(kind: type[Identity | Provenance], document: dict[str, Any]) -> dict[str, Any]:
    return {f.name: document.get(f.name) for f in dataclasses.fields(kind)}


_HEAD = (
    "name", "arm", "group", "config", "overrides", "swept", "claim_sha256", "restarts",
)  # fmt: skip


def read_complete(folder: Path) -> RunResult | None:
    """Return the result of the run in `folder` if it is complete."""
    path = folder / FILE
    if not path.exists():
        return None
    document = read_json(path)
    return RunResult.from_json(document) if document.get("status") == "complete" else None
