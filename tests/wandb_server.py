"""A W&B server on loopback, for tests: it keeps what real runs, `wandb sync` and workspaces send.

Written against wandb 0.31. A newer wandb that asks for more is answered in `_graphql` alone: an
operation it does not know is in `Server.unknown`, which tests assert to be empty.

Like the real one it puts the lines of a stream where their offset says, so that a chunk sent twice is
there once; what lands on a *different* line is in `Run.overwritten`.
"""

from __future__ import annotations

import gzip
import io
import json
import re
import threading
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import polars as pl
from polars import selectors

KEY = "0123456789abcdef" * 2 + "deadbeef"  # of the form that wandb checks


@dataclass
class Run:
    """What arrived of one run."""

    fields: dict[str, Any] = field(default_factory=dict)  # as UpsertBucket names them
    streams: dict[str, list[str]] = field(default_factory=dict)  # file → lines
    files: dict[str, bytes] = field(default_factory=dict)
    overwritten: list[tuple[str, str]] = field(default_factory=list)
    exit_code: int | None = None
    state: str | None = None  # instead of what follows from the exit code

    def rows(self) -> list[dict[str, Any]]:
        """The history, without wandb's own fields."""
        lines = map(json.loads, self.streams.get("wandb-history.jsonl", []))
        return [{k: v for k, v in row.items() if not k.startswith("_")} for row in lines]

    def steps(self) -> list[int]:
        return [json.loads(line)["_step"] for line in self.streams.get("wandb-history.jsonl", [])]

    @property
    def config(self) -> dict[str, Any]:
        whole = json.loads(self.fields["config"])
        return {key: entry["value"] for key, entry in whole.items() if key != "_wandb"}

    @property
    def metrics(self) -> list[dict[str, Any]]:
        """`define_metric`, in wandb's numbered fields (`wandb_internal.proto`, MetricRecord)."""
        found: list[dict[str, Any]] = json.loads(self.fields["config"])["_wandb"]["value"]["m"]
        return found

    @property
    def summary(self) -> dict[str, Any]:
        (line,) = self.streams["wandb-summary.json"][-1:]
        return {k: v for k, v in json.loads(line).items() if not k.startswith("_")}

    def stream(self, name: str, offset: int, content: list[str]) -> None:
        if name == "wandb-summary.json":  # one line, sent again whenever it changes
            self.streams[name] = content
            return
        lines = self.streams.setdefault(name, [])
        for place, line in enumerate(content, start=offset):
            if place < len(lines):
                if lines[place] != line:
                    self.overwritten.append((lines[place], line))
                lines[place] = line
            else:
                lines.extend([""] * (place - len(lines)))
                lines.append(line)


@dataclass
class Artifact:
    """What arrived of one artifact; `fields` as CreateArtifact names them."""

    fields: dict[str, Any]
    files: dict[str, bytes] = field(default_factory=dict)
    committed: bool = False


@dataclass
class Server:
    """`runs` and `artifacts` by their ids and names. `fault` is what it does instead of answering."""

    url: str = ""
    runs: dict[str, Run] = field(default_factory=dict)
    artifacts: dict[str, Artifact] = field(default_factory=dict)
    views: dict[str, dict[str, Any]] = field(default_factory=dict)  # workspaces and reports, by id
    sweeps: dict[str, str] = field(default_factory=dict)  # name → its YAML
    commands: list[dict[str, Any]] = field(default_factory=list)  # for the sweep's agent, in turn
    unknown: list[str] = field(default_factory=list)
    requests: int = 0
    refused: str | None = None  # the id of a run that it does not take
    fault: str | None = None  # "429", "500" or "hang"
    faults_left: int | None = None  # after how many faults it answers again
    fault_after: tuple[int, str] | None = None  # how many requests are answered before which fault
    parquet: bool = False  # whether histories are exported, as those of runs that ended long ago
    closing: threading.Event = field(default_factory=threading.Event)

    def environment(self) -> dict[str, str]:
        """What a process needs to take this for W&B."""
        return {"WANDB_BASE_URL": self.url, "WANDB_API_KEY": KEY}


@contextmanager
def serve(port: int = 0) -> Iterator[Server]:
    """A server in a thread of this process, until the block ends."""
    server = Server()
    handler = type("Handler", (_Handler,), {"state": server})
    listener = _Listener(("127.0.0.1", port), handler)
    listener.daemon_threads = True
    server.url = f"http://127.0.0.1:{listener.server_port}"
    thread = threading.Thread(target=listener.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield server
    finally:
        server.closing.set()
        listener.shutdown()
        listener.server_close()
        thread.join()


class _Listener(ThreadingHTTPServer):
    def handle_error(self, *args: Any) -> None:
        """Nothing: clients are killed here, and cut their connections."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    state: Server

    def log_message(self, *args: Any) -> None:
        pass

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        server = self.state
        server.requests += 1
        if server.fault_after and server.requests > server.fault_after[0]:
            server.fault = server.fault_after[1]
        if server.fault and server.faults_left is not None:
            server.faults_left -= 1
            if server.faults_left < 0:
                server.fault = None
        if server.fault == "hang":
            server.closing.wait()
            self.close_connection = True
            return
        if server.fault in ("429", "500"):
            self._answer({}, status=int(server.fault))
        elif self.path == "/graphql":
            asked = json.loads(body)
            variables = asked.get("variables") or {}
            refused = _too_long(variables)
            if server.refused and variables.get("name") == server.refused:
                refused = "it is not wanted"
            if refused:
                self._answer({"errors": [{"message": refused}]}, status=400)
            else:
                self._answer(_graphql(server, asked["query"], variables))
        elif match := re.fullmatch(r"/parquet/([^/]+)/0.parquet", self.path):
            self._send(_parquet(server.runs[match[1]]))
        elif match := re.fullmatch(r"/files/[^/]+/[^/]+/([^/]+)/file_stream", self.path):
            reported, run = json.loads(body), server.runs[match[1]]
            for name, chunk in (reported.get("files") or {}).items():
                run.stream(name, chunk["offset"], chunk["content"])
            if reported.get("complete"):
                run.exit_code = reported["exitcode"]
            self._answer({})
        else:
            self._upload(body)

    do_GET = do_PUT = do_POST

    def _upload(self, body: bytes) -> None:
        if match := re.fullmatch(r"/upload/run/([^/]+)/(.+)", self.path):
            self.state.runs[match[1]].files[match[2]] = body
        elif match := re.fullmatch(r"/upload/artifact/([^/]+)/(.+)", self.path):
            self.state.artifacts[match[1]].files[match[2]] = body
        elif not self.path.startswith("/sdk/otel/"):  # wandb's telemetry about itself
            self.state.unknown.append(f"{self.command} {self.path}")
        self._answer({})

    def _answer(self, document: dict[str, Any], status: int = 200) -> None:
        self._send(json.dumps(document).encode(), status)

    def _send(self, body: bytes, status: int = 200) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


_USER = {"id": "VXNlcjox", "entity": "tester", "username": "tester", "email": "", "flags": "{}"}
_DATE = "2026-01-01T00:00:00"
_PROJECT = {"id": "p", "entity": {"id": "e", "name": "tester"}}


_MOST_CHARACTERS = {"displayName": 128, "groupName": 128, "jobType": 64}


def _too_long(variables: dict[str, Any]) -> str | None:
    """What the real server says of a run whose names are longer than it takes."""
    for name, most in _MOST_CHARACTERS.items():
        if len(variables.get(name) or "") > most:
            return f"{name} must be at most {most} characters"
    return None


def _graphql(server: Server, query: str, variables: dict[str, Any]) -> dict[str, Any]:
    operation = re.search(r"(?:query|mutation)\s+(\w+)", query)
    data = _operation(server, operation[1] if operation else query, variables)
    return {"data": data}


def _operation(server: Server, name: str, v: dict[str, Any]) -> dict[str, Any] | None:
    match name:
        case "Viewer":
            return {"viewer": {**_USER, "teams": {"edges": []}}}
        case "RunResumeStatus":
            run = server.runs.get(v["name"])
            return {"model": {**_PROJECT, "name": v["project"], "bucket": _tail(run, v["name"])}}
        case "UpsertBucket":
            run = server.runs.setdefault(v["name"], Run())
            inserted = not run.fields
            run.fields |= {key: value for key, value in v.items() if value is not None}
            project = {**_PROJECT, "name": v["project"] or run.fields["project"]}
            bucket = {
                "id": v["name"],
                "name": v["name"],
                "displayName": run.fields.get("displayName"),
                "config": run.fields.get("config"),
                "project": project,
                "historyLineCount": len(run.streams.get("wandb-history.jsonl", [])),
            }
            return {"upsertBucket": {"bucket": bucket, "inserted": inserted}}
        case "CreateRunFiles":
            files = [
                {"name": file, "uploadUrl": f"{server.url}/upload/run/{v['run']}/{file}"}
                for file in v["files"]
            ]
            return {"createRunFiles": {"runID": v["run"], "uploadHeaders": [], "files": files}}
        case "GetDefaultEntity":
            return {"viewer": _USER}
        case "Runs":
            return {"project": _page(server, v)}
        case "RunHistoryKeys" | "RunParquetHistory" | "HistoryPage":
            asked = server.runs.get(v.get("run") or v.get("runName") or v["name"])
            return {"project": {"run": asked and _history(server, name, asked, v)}}
        case "ProjectInternalId":
            return {"project": {"id": "p", "internalId": "UHJvamVjdDox"}}
        case "GetProjects":
            node = {"id": "p", "name": "cosine-restarts", "entityName": v["entity"], "user": None}
            node |= {"createdAt": _DATE, "isBenchmark": False}
            page = {"endCursor": None, "hasNextPage": False}
            return {"models": {"pageInfo": page, "edges": [{"node": node}]}}
        case "UpsertView2" | "upsertView":
            known = v.get("id") or b64encode(f"View:{len(server.views)}".encode()).decode()
            view = {"id": known, "createdAt": _DATE, "updatedAt": _DATE}
            view |= {key: v[key] for key in ("name", "displayName", "description", "type", "spec")}
            view["project"] = {"id": "p", "name": v["projectName"], "entityName": v["entityName"]}
            inserted = known not in server.views
            server.views[known] = view
            return {"upsertView": {"view": view, "inserted": inserted}}
        case "View":
            found = [view for view in server.views.values() if view["name"] == v["viewName"]]
            edges = [{"node": view} for view in found]
            return {"project": {"allViews": {"edges": edges}}}
        case "SpecificReport":
            return {"view": server.views.get(v["reportId"])}
        case "UpsertSweep":
            server.sweeps["sweep1"] = v["config"]
            sweep = {"name": "sweep1", "project": {**_PROJECT, "name": v["projectName"]}}
            return {"upsertSweep": {"sweep": sweep, "configValidationWarnings": []}}
        case "SweepWithRuns":
            sweep = {"id": "s", "name": v["sweep"], "config": server.sweeps[v["sweep"]]}
            return {"project": {"sweep": {**sweep, "state": "RUNNING", "runs": {"edges": []}}}}
        case "CreateAgent":
            return {"createAgent": {"agent": {"id": "agent1"}}}
        case "Heartbeat":
            busy = json.loads(v["runState"] or "{}")
            given = (
                [] if busy else [server.commands.pop(0) if server.commands else {"type": "exit"}]
            )
            reported = {"agent": {"id": v["id"]}, "commands": json.dumps(given)}
            return {"agentHeartbeat": reported}
        case "OrganizationCoreWeaveOrganizationID":
            return {"entity": {"organization": {"coreWeaveOrganizationId": None}}}
        case "ServerFeaturesQuery":
            return {"serverInfo": {"features": []}}
        case "XXHashDigestsEnabled":
            return {"entity": {"xxhashDigestsEnabled": False}}
        case "ArtifactType":
            return {"project": {"artifact": None}}
        case "CreateArtifact":
            name = v["input"]["artifactCollectionName"]
            server.artifacts[name] = Artifact(v["input"])
            made = {"id": name, "state": "PENDING", "artifactSequence": {"latestArtifact": None}}
            return {"createArtifact": {"artifact": made}}
        case "CreateArtifactManifest":
            name = v["artifactID"]
            file = {"id": "m", "uploadUrl": f"{server.url}/upload/artifact/{name}/{v['name']}"}
            manifest = {"id": "m", "file": {**file, "uploadHeaders": []}}
            return {"createArtifactManifest": {"artifactManifest": manifest}}
        case "CreateArtifactFiles":
            nodes = [
                {
                    "storagePath": file["name"],
                    "uploadUrl": f"{server.url}/upload/artifact/{file['artifactID']}/{file['name']}",
                    "uploadHeaders": [],
                    "uploadMultipartUrls": None,
                    "artifact": {"id": file["artifactID"]},
                }
                for file in v["input"]["artifactFiles"]
            ]
            edges = [{"node": node} for node in nodes]
            return {"createArtifactFiles": {"files": {"edges": edges}}}
        case "CommitArtifact":
            server.artifacts[v["artifactID"]].committed = True
            return {"commitArtifact": {"artifact": {"id": v["artifactID"], "digest": "d"}}}
    server.unknown.append(f"{name} {json.dumps(v)[:3000]}")
    return None


def _page(server: Server, v: dict[str, Any]) -> dict[str, Any] | None:
    """A page of the runs of a project that its filters let through; None for a project without runs."""
    every = [
        run
        for run in server.runs.values()
        if run.fields["project"] == v["project"] and v["entity"] == _USER["entity"]
    ]
    if not every:
        return None
    nodes = [node for node in map(_node, every) if _passes(node, json.loads(v["filters"]))]
    begin = int(v.get("cursor") or 0)
    end = begin + (v.get("perPage") or 50)
    edges = [{"node": node, "cursor": str(i)} for i, node in enumerate(nodes[begin:end], begin + 1)]
    info = {"endCursor": str(end), "hasNextPage": end < len(nodes)}
    page = {"internalId": "1", "runCount": len(nodes), "readOnly": False}
    return {**page, "runs": {"edges": edges, "pageInfo": info}}


def _node(run: Run) -> dict[str, Any]:
    history = run.streams.get("wandb-history.jsonl", [])
    tail: dict[str, Any] = _tail(run, run.fields["name"]) or {}
    state = {None: "running", 0: "finished"}.get(run.exit_code, "failed")
    nothing = ("commit", "description", "systemMetrics")
    return {
        **dict.fromkeys(nothing), **tail, "projectId": "1", "state": run.state or state,
        "group": run.fields.get("groupName"), "jobType": run.fields.get("jobType"),
        "sweepName": run.fields.get("sweep"), "readOnly": False, "createdAt": _DATE, "heartbeatAt": _DATE,
        "historyKeys": _history_keys(history), "user": {"name": "tester", "username": "tester"},
    }  # fmt: skip


def _history_keys(history: list[str]) -> dict[str, Any]:
    return {"lastStep": json.loads(history[-1])["_step"] if history else -1, "keys": {}}


def _passes(node: dict[str, Any], filters: dict[str, Any]) -> bool:
    """Whether a run passes filters in MongoDB's language, as far as it is used; config keys with and without `.value`."""
    for key, wanted in filters.items():
        if key == "$and":
            passed = all(_passes(node, one) for one in wanted)
        elif key == "$or":
            passed = any(_passes(node, one) for one in wanted)
        else:
            among = wanted["$in"] if isinstance(wanted, dict) else [wanted]
            values = node["tags"] if key == "tags" else [_field(node, key)]
            passed = any(type(a) is type(b) and a == b for a in values for b in among)
        if not passed:
            return False
    return True


def _field(node: dict[str, Any], key: str) -> Any:
    section, _, rest = key.partition(".")
    if section != "config":
        return node["sweepName" if key == "sweep" else key]
    first, *others = rest.split(".")
    value = json.loads(node["config"]).get(first, {}).get("value")
    for part in others if others[:1] != ["value"] else others[1:]:
        value = value.get(part) if isinstance(value, dict) else None
    return value


def _history(server: Server, name: str, run: Run, v: dict[str, Any]) -> dict[str, Any]:
    lines = run.streams.get("wandb-history.jsonl", [])
    steps = [json.loads(line)["_step"] for line in lines]
    match name:
        case "RunHistoryKeys":
            return {"historyKeys": _history_keys(lines)}
        case "RunParquetHistory" if server.parquet:
            url = f"{server.url}/parquet/{v['runName']}/0.parquet"
            return {"parquetHistory": {"parquetUrls": [url], "liveData": []}}
        case "RunParquetHistory":
            live = [{"_step": step} for step in steps]
            return {"parquetHistory": {"parquetUrls": [], "liveData": live}}
    chosen = [line for line, at in zip(lines, steps, strict=True) if v["minStep"] <= at < v["maxStep"]]  # fmt: skip
    return {"history": chosen[: v["pageSize"]]}


def _parquet(run: Run) -> bytes:
    lines = run.streams["wandb-history.jsonl"]
    rows = [json.loads(line, parse_int=float) for line in lines]
    table = pl.DataFrame(rows, infer_schema_length=None, strict=False)
    file = io.BytesIO()
    numbers = table.select(selectors.numeric())  # wandb-core takes no text and lists of polars
    numbers.with_columns(pl.col("_step").cast(pl.Int64)).write_parquet(file)
    return file.getvalue()


def _tail(run: Run | None, name: str) -> dict[str, Any] | None:
    if run is None:
        return None
    history = run.streams.get("wandb-history.jsonl", [])
    events = run.streams.get("wandb-events.jsonl", [])
    return {
        "id": name,
        "name": name,
        "displayName": run.fields.get("displayName"),
        "summaryMetrics": (run.streams.get("wandb-summary.json") or ["{}"])[-1],
        "logLineCount": len(run.streams.get("output.log", [])),
        "historyLineCount": len(history),
        "eventsLineCount": len(events),
        "historyTail": json.dumps(history[-1:]),
        "eventsTail": json.dumps(events[-1:]),
        "config": run.fields.get("config", "{}"),
        "tags": run.fields.get("tags", []),
        "notes": None,
        "wandbConfig": json.dumps({"t": 1}),
    }
