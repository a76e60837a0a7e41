"""Fake W&B server on loopback: the part that `wandb sweep`, `wandb agent` and a run use."""

from __future__ import annotations

import itertools
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import yaml

KEY = "a" * 40
ENTITY, PROJECT = "team", "trainer"


@dataclass
class Run:
    """A run on the server. `state`: pending, running, lost, finished or failed."""

    id: str
    arguments: dict[str, Any]
    state: str = "pending"
    config: dict[str, Any] = field(default_factory=dict)
    summary: dict[str, Any] = field(default_factory=dict)
    exit_code: int | None = None
    starts: int = 0


class Server:
    """A grid sweep: each combination is one run, given to the next agent that asks.

    With `requeues` a run that was lost or failed is given out a second time, as W&B does with preempted runs.
    """

    def __init__(self, *, requeues: bool) -> None:
        self._requeues = requeues
        self.sweep: dict[str, Any] = {}
        self.runs: dict[str, Run] = {}
        self.url = ""
        self.unknown: list[str] = []  # operations that are not implemented
        self._lock = threading.Lock()

    def answer(self, operation: str, variables: dict[str, Any]) -> dict[str, Any]:
        with self._lock:
            handler = getattr(self, f"_{operation}", None)
            if handler is None:
                self.unknown.append(operation)
                return {}
            answer: dict[str, Any] = handler(variables)
            return answer

    def note_stream(self, run_id: str, body: dict[str, Any]) -> None:
        """Record a run's stream: its summary and its exit code."""
        with self._lock:
            run = self.runs.setdefault(run_id, Run(run_id, {}))
            for line in body.get("files", {}).get("wandb-summary.json", {}).get("content", []):
                run.summary |= json.loads(line)
            if body.get("complete"):
                run.exit_code = body.get("exitcode")
                run.state = "failed" if run.exit_code else "finished"

    def _Viewer(self, _: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        return {"viewer": {"id": "u", "entity": ENTITY, "username": "u", "flags": "{}", "teams": {"edges": []}}}

    def _ServerFeaturesQuery(self, _: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        return {"serverInfo": {"features": []}}

    def _UpsertSweep(self, variables: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        self.sweep = yaml.safe_load(variables["config"])
        names = list(self.sweep["parameters"])
        choices = [rules.get("values", [rules.get("value")]) for rules in self.sweep["parameters"].values()]
        for index, values in enumerate(itertools.product(*choices)):
            run_id = f"run{index:05d}"
            self.runs[run_id] = Run(run_id, dict(zip(names, values, strict=True)))
        return {"upsertSweep": {"sweep": {"name": "sweep1", "project": _project()}, "configValidationWarnings": []}}

    def _SweepWithRuns(self, _: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        sweep = {"id": "s", "name": "sweep1", "state": "RUNNING", "config": yaml.safe_dump(self.sweep)}
        return {"project": {"sweep": sweep | {"runs": {"edges": []}}}}

    def _CreateAgent(self, _: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        return {"createAgent": {"agent": {"id": "agent1"}}}

    def _Heartbeat(self, variables: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        """Give out one run at a time, and `exit` when none is left."""
        alive = json.loads(variables["runState"])
        for run in self.runs.values():
            if run.state == "running" and run.id not in alive:
                run.state = "lost"
            if self._requeues and run.state in ("lost", "failed") and run.starts == 1:
                run.state = "pending"
        commands: list[dict[str, Any]] = []
        if not alive:
            pending = [run for run in self.runs.values() if run.state == "pending"]
            commands = [self._start(pending[0])] if pending else [{"type": "exit"}]
        return {"agentHeartbeat": {"agent": {"id": "agent1"}, "commands": json.dumps(commands)}}

    def _start(self, run: Run) -> dict[str, Any]:
        run.state, run.exit_code = "running", None
        run.starts += 1
        arguments = {name: {"value": value} for name, value in run.arguments.items()}
        if run.starts > 1:  # W&B marks a run that it gives out again
            arguments["_wandb_resumed"] = {"value": True}
        return {
            "type": "run" if run.starts == 1 else "resume",
            "run_id": run.id,
            "args": arguments,
            "program": self.sweep.get("program", ""),
        }

    def _OrganizationCoreWeaveOrganizationID(self, _: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        return {"entity": {"organization": None}}

    def _CreateRunFiles(self, variables: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        files = [{"name": name, "uploadUrl": f"{self.url}/upload/{name}"} for name in variables["files"]]
        return {"createRunFiles": {"runID": "b", "uploadHeaders": [], "files": files}}

    def _UpsertBucket(self, variables: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        run = self.runs.setdefault(variables["name"], Run(variables["name"], {}))
        if variables.get("config"):
            run.config |= {key: rules["value"] for key, rules in json.loads(variables["config"]).items()}
        bucket = {"id": "b", "name": run.id, "displayName": run.id, "config": "{}", "project": _project()}
        return {"upsertBucket": {"bucket": bucket | {"sweepName": "sweep1"}, "inserted": run.starts <= 1}}


def _project() -> dict[str, Any]:
    return {"id": "p", "name": PROJECT, "entity": {"id": "e", "name": ENTITY}}


class _Handler(BaseHTTPRequestHandler):
    wandb: Server

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        answer: dict[str, Any] = {}
        if self.path == "/graphql":
            query = json.loads(body)
            found = re.search(r"(?:query|mutation)\s+(\w+)", query["query"])
            answer = {"data": self.wandb.answer(found[1] if found else "", query.get("variables") or {})}
        elif found := re.search(r"/files/[^/]+/[^/]+/([^/]+)/file_stream", self.path):
            self.wandb.note_stream(found[1], json.loads(body))
        self._send(json.dumps(answer).encode())

    def do_PUT(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self._send(b"")

    def do_GET(self) -> None:
        self._send(b"{}")

    def _send(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def wandb_server(*, requeues: bool = False) -> Iterator[tuple[Server, dict[str, str]]]:
    """The server, and the environment variables with which W&B's programs find it."""
    server = Server(requeues=requeues)
    handler = type("Handler", (_Handler,), {"wandb": server})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as http:
        http.daemon_threads = True
        server.url = f"http://127.0.0.1:{http.server_port}"
        threading.Thread(target=http.serve_forever, daemon=True).start()
        yield (
            server,
            {
                "WANDB_BASE_URL": server.url,
                "WANDB_API_KEY": KEY,
                "WANDB_ENTITY": ENTITY,
                "WANDB_PROJECT": PROJECT,
                "WANDB_MODE": "online",
            },
        )
        http.shutdown()
