"""`bentoml serve` in a process of its own, on loopback, with a store of its own."""

from __future__ import annotations

import http.client
import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from trainer.artifact import store

PROJECT = Path(__file__).parents[1]
BENTOML = Path(sys.executable).parent / "bentoml"
READY_TIMEOUT_S = 60


@dataclass
class Reply:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def value(self) -> Any:
        return json.loads(self.body)

    @property
    def code(self) -> str | None:
        """The error's code; None for an answer that is no error."""
        if self.status < 400:
            return None
        assert self.headers["content-type"] == "application/json"
        assert list(self.value) == ["error"]
        assert list(self.value["error"]) == ["code", "message"]
        return str(self.value["error"]["code"])


@dataclass
class Address:
    """Address of a server on loopback."""

    port: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def ask(
        self,
        method: str,
        path: str,
        body: bytes | Iterable[bytes] | None = None,
        content_type: str = "",
        headers: Mapping[str, str] | None = None,
    ) -> Reply:
        """One request on a connection of its own; an iterable body is sent chunked."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            sent = {"Content-Type": content_type} if content_type else {}
            chunked = body is not None and not isinstance(body, bytes)
            connection.request(method, path, body, sent | dict(headers or {}), encode_chunked=chunked)
            return read_reply(connection)
        finally:
            connection.close()

    def predict(self, body: bytes | Iterable[bytes], content_type: str = "application/octet-stream") -> Reply:
        return self.ask("POST", "/predict", body, content_type)


@dataclass
class Server(Address):
    """A server that a test has started."""

    tag: str
    process: subprocess.Popen[bytes]
    log: Path

    def workers(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children(recursive=True)


def read_reply(connection: http.client.HTTPConnection) -> Reply:
    response = connection.getresponse()
    names = {name.lower(): value for name, value in response.getheaders()}
    return Reply(response.status, names, response.read())


def form(*files: tuple[str, bytes], field: str | None = None) -> tuple[bytes, str]:
    """A multipart body of (name, contents), and a text field of this name; its Content-Type."""
    parts = [
        f'--frame\r\nContent-Disposition: form-data; name="{name}"; filename="f"\r\n\r\n'.encode() + data + b"\r\n"
        for name, data in files
    ]
    if field:
        parts.append(f'--frame\r\nContent-Disposition: form-data; name="{field}"\r\n\r\ntext\r\n'.encode())
    return b"".join(parts) + b"--frame--\r\n", "multipart/form-data; boundary=frame"


def environment(home: Path) -> dict[str, str]:
    """The environment of a user, without the test's settings: telemetry has to be off by default."""
    ours = {key: value for key, value in os.environ.items() if key not in ("BENTOML_DO_NOT_TRACK", "TRAINER_MODEL")}
    return ours | {"BENTOML_HOME": str(home)}


def publish(artifact: Path, home: Path, name: str = "tiny") -> str:
    """Publish the artifact into the store at `home`; its tag."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BENTOML_HOME", str(home))
        return store.publish(artifact, name)


@contextmanager
def serving(
    artifact: Path,
    home: Path,
    *arguments: str,
    command: Sequence[str] = (str(BENTOML), "serve", "."),
    folder: Path = PROJECT,
    **variables: str,
) -> Iterator[Server]:
    """Publish the artifact into a store at `home` and serve it, or what the command serves; ends with SIGTERM."""
    tag = publish(artifact, home)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    log = home / "serve.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*command, "--host", "127.0.0.1", "--port", str(port), *arguments],
            cwd=folder,
            env=environment(home) | variables,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    server = Server(port, tag, process, log)
    try:
        wait_until_ready(server)
        yield server
    finally:
        process.terminate()
        process.wait(30)


def wait_until_ready(server: Server) -> None:
    deadline = time.monotonic() + READY_TIMEOUT_S
    while time.monotonic() < deadline:
        assert server.process.poll() is None, server.log.read_text()
        try:
            with urllib.request.urlopen(f"{server.url}/readyz", timeout=2):
                return
        except (urllib.error.URLError, TimeoutError, ConnectionError):
            time.sleep(0.1)
    pytest.fail(f"not ready: {server.log.read_text()}")


def serve_until_exit(variables: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    """`bentoml serve` that is expected to end by itself."""
    command = [str(BENTOML), "serve", "--host", "127.0.0.1", "--port", "0", *arguments]
    return subprocess.run(command, cwd=PROJECT, env=variables, capture_output=True, text=True, timeout=60, check=False)
