"""The port of a server in an image, and its health check."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest
from server import BENTOML, PROJECT, Address, Server, environment, publish, wait_until_ready

from trainer.cli import run
from trainer.serving import healthcheck
from trainer.serving.healthcheck import server_address

HEALTHCHECK = [sys.executable, "-IS", healthcheck.__file__]


@pytest.fixture(scope="module")
def bento(tiny_artifact: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    home: Path = tmp_path_factory.mktemp("bento")
    publish(tiny_artifact, home)
    subprocess.run([str(BENTOML), "build"], cwd=PROJECT, env=environment(home), capture_output=True, check=True)
    bentos = home / "bentos" / "classifier"
    return bentos / (bentos / "latest").read_text()


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def is_healthy(variables: dict[str, str]) -> bool:
    return subprocess.run(HEALTHCHECK, env=variables, capture_output=True, timeout=30, check=False).returncode == 0


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_platform_s_port_is_served_and_checked(bento: Path, tmp_path: Path, workers: str) -> None:
    port = free_port()
    variables = environment(tmp_path) | {"PORT": str(port), "BENTOML_HOST": "127.0.0.1", "TRAINER_WORKERS": workers}
    variables |= {"BENTOML_HOME": str(bento.parents[2]), "PATH": f"{BENTOML.parent}:{os.environ['PATH']}"}
    assert not is_healthy(variables)
    log = tmp_path / "log"
    with ExitStack() as stack:
        output = stack.enter_context(log.open("wb"))
        command = [sys.executable, "-m", "trainer.serving", str(bento)]
        process = subprocess.Popen(command, cwd=PROJECT, env=variables, stdout=output, stderr=subprocess.STDOUT)
        stack.callback(process.wait, 30)
        stack.callback(process.terminate)
        wait_until_ready(Server(port, "", process, log))
        assert Address(port).ask("GET", "/model").status == 200
        assert is_healthy(variables)
    assert not is_healthy(variables)


@pytest.mark.parametrize("variable", ["PORT", "BENTOML_PORT"])
@pytest.mark.parametrize("value", ["http", "65536", "-1", "3e3"])
def test_a_wrong_port_is_refused_with_its_variable(variable: str, value: str) -> None:
    command = [sys.executable, "-m", "trainer.serving", "."]
    variables = os.environ | {variable: value}
    done = subprocess.run(command, cwd=PROJECT, env=variables, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    last = done.stderr.splitlines()[-1]
    assert repr(value) in last
    assert variable in last
    assert "65535" in last


def test_trainer_serve_reads_the_platform_s_port(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PORT", "70000")
    assert run(["serve"]) == 2
    assert "70000" in capfd.readouterr().err


def test_the_address_is_of_the_options_then_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("PORT", "BENTOML_PORT", "BENTOML_HOST"):
        monkeypatch.delenv(variable, raising=False)
    server = ["python", "-m", "trainer.serving", "/app"]
    assert server_address(server) == ("0.0.0.0", "3000")
    assert server_address([*server, "--port=1", "--host=::", "--port", "2", ""]) == ("::", "2")
    assert server_address(["/sbin/docker-init", "--", *server, "--port", "8080"]) == ("0.0.0.0", "8080")
    monkeypatch.setenv("PORT", "4000")
    assert server_address(server) == ("0.0.0.0", "4000")
    assert server_address([*server, "--port", "1"])[1] == "1"
    monkeypatch.setenv("BENTOML_PORT", "5000")
    monkeypatch.setenv("BENTOML_HOST", "127.0.0.1")
    assert server_address(server) == ("127.0.0.1", "5000")
    monkeypatch.setenv("BENTOML_PORT", "")
    assert server_address(server)[1] == "4000"
