from __future__ import annotations

import re
import signal
import socket
import sys
from pathlib import Path

import pytest
from expected_answers import encoded
from server import serving

from trainer import serve
from trainer.artifact import store
from trainer.cli import run
from trainer.serve import Launch

TRAINER = str(Path(sys.executable).with_name("trainer"))


def test_serve_works_from_any_folder(tiny_artifact: Path, tmp_path: Path) -> None:
    """The modules there are not imported; relative paths are relative to it."""
    folder = tmp_path / "anywhere"
    folder.mkdir()
    for module in ("service.py", "random.py"):
        (folder / module).write_text("raise SystemExit('not this one')")
    arguments = ("tiny", "--arg", "drain_file=drain")
    command = (TRAINER, "serve")
    with serving(tiny_artifact, tmp_path, *arguments, command=command, folder=folder, BENTOML_HOME="..") as server:
        assert server.predict(encoded()).value["model"] == server.tag
        (folder / "drain").touch()
        assert server.ask("GET", "/readyz").code == "not_ready"
        url = f"http://127.0.0.1:{server.port}"
        assert f"serving {server.tag} at {url} (" in server.log.read_text()
        server.process.send_signal(signal.SIGINT)
        assert server.process.wait(20) == 0
        assert "Traceback" not in server.log.read_text()


@pytest.mark.parametrize(
    ("host", "with_token", "shown"),
    [
        (
            "0.0.0.0",
            False,
            "0.0.0.0:80 (every machine that reaches this one, without password); page: http://127.0.0.1:80/ui",
        ),
        (
            "10.0.0.9",
            True,
            "10.0.0.9:80 (every machine that reaches this one, with a token); page: http://10.0.0.9:80/ui",
        ),
        ("::1", False, "[::1]:80 (this machine only; --host 0.0.0.0 for all); page: http://[::1]:80/ui"),
    ],
)
def test_the_first_line_says_who_can_reach_the_server(host: str, with_token: bool, shown: str) -> None:
    assert str(Launch("pets:1", host, 80, {}, with_token)) == f"serving pets:1 at http://{shown}"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["cats"], "cats: no model 'cats' in the store "),
        (["--arg", "modle=x"], "--arg modle: no such setting; there are model, engine"),
        (["--arg", "workers=two"], "--arg workers: 'two' is wrong: "),
        (["--arg", "workers"], "--arg: 'workers' is wrong; NAME=VALUE is expected"),
        (["tiny", "--arg", "model=other"], "--arg model: both 'tiny' and 'other' are given; one is expected"),
        (["--host", "nowhere.invalid"], "--host: 'nowhere.invalid' is not an address, such as 127.0.0.1 or 0.0.0.0"),
        (["--host", "203.0.113.1"], "--host 203.0.113.1 --port 3000 cannot be listened on: "),
        (["--port", "many"], "--port: 'many' is wrong; a whole number is expected"),
        (["--port", "0"], "--port: '0' is wrong: "),
    ],
)
def test_wrong_input_is_refused_in_one_line(
    arguments: list[str], message: str, tiny_artifact: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store.publish(tiny_artifact, "tiny")
    capsys.readouterr()
    assert run(["serve", *arguments]) == 2
    errors = capsys.readouterr().err
    assert errors.startswith(f"error: {message}")
    assert errors.count("\n") == 1


def test_a_taken_port_is_refused_with_a_free_one(tiny_artifact: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store.publish(tiny_artifact, "tiny")
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        for host in ("127.0.0.1", "localhost", "0.0.0.0"):
            capsys.readouterr()
            assert run(["serve", "--host", host, "--port", str(port)]) == 2
            errors = capsys.readouterr().err
            address = host.replace("localhost", "127.0.0.1")
            message = f"error: --port: {port} of {address} is taken by another program; try --port "
            assert errors.startswith(message)
            assert int(errors.removeprefix(message)) > port


def test_a_damaged_model_is_refused_before_the_start(tiny_artifact: Path, capsys: pytest.CaptureFixture[str]) -> None:
    damaged = store.find(store.publish(tiny_artifact, "tiny")).path / "model.tflite"
    damaged.write_bytes(b"x")
    capsys.readouterr()
    assert run(["serve"]) == 2
    assert re.fullmatch(f"error: {damaged}: .*sha256.*\n", capsys.readouterr().err)


def test_without_the_project_the_error_says_what_to_install(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serve, "PROJECT", tmp_path)
    assert run(["serve"]) == 2
    assert "pip install" in capsys.readouterr().err
