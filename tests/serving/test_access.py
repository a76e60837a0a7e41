"""Tokens and CORS, on a server with two workers and a JSON log."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from expected_answers import encoded
from server import Server, environment, publish, serve_until_exit, serving

from trainer.cli import run

TOKEN = "correct-horse"
WITH_TOKEN = {"Authorization": f"Bearer {TOKEN}"}
ORIGIN = "https://app.example"


@pytest.fixture(scope="module")
def server(tiny_artifact: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    home = tmp_path_factory.mktemp("served")
    (home / "tokens").write_text(f"# of the shop\n{TOKEN}\n")
    variables: dict[str, Any] = {
        "TRAINER_TOKEN_FILE": str(home / "tokens"),
        "TRAINER_CORS_ORIGINS": f"http://localhost:8080,{ORIGIN}",
    }
    with serving(tiny_artifact, home, TRAINER_WORKERS="2", TRAINER_LOG_JSON="true", **variables) as running:
        yield running


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("POST", "/predict", 400),
        ("GET", "/predict", 405),
        ("GET", "/model", 200),
        ("GET", "/metrics", 200),
        ("GET", "/docs.json", 200),
        ("GET", "/schema.json", 200),
        ("GET", "/", 200),
        ("OPTIONS", "/model", 405),
        ("GET", "/nothing", 404),
        ("GET", "/model/", 200),
    ],
)
def test_every_path_needs_a_token(server: Server, method: str, path: str, status: int) -> None:
    reply = server.ask(method, path)
    assert (reply.status, reply.code, reply.headers["www-authenticate"]) == (401, "unauthorized", "Bearer")
    assert server.ask(method, path, headers=WITH_TOKEN).status == status


@pytest.mark.parametrize("path", ["/v2", "/v2/health/ready", "/v2/models/tiny", "/v2/models/tiny/infer", "/v2/nothing"])
def test_the_open_inference_protocol_needs_a_token_and_says_so_as_text(server: Server, path: str) -> None:
    reply = server.ask("GET", path)
    assert (reply.status, reply.headers["www-authenticate"]) == (401, "Bearer")
    assert reply.value == {"error": "a token is expected, as the header Authorization: Bearer TOKEN"}
    assert server.ask("GET", path, headers=WITH_TOKEN).status != 401


def test_health_checks_need_no_token(server: Server) -> None:
    assert [server.ask("GET", path).status for path in ("/livez", "/readyz", "/livez/", "//readyz")] == [200] * 4


def test_a_request_without_a_token_is_refused_before_its_body(server: Server) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=5) as connection:
        connection.sendall(b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n")
        assert connection.recv(12) == b"HTTP/1.1 401"


def test_the_page_is_shown_without_a_token(server: Server) -> None:
    reply = server.ask("GET", "/ui")
    assert (reply.status, reply.headers["www-authenticate"]) == (401, "Bearer")
    assert reply.headers["content-type"] == "text/html; charset=utf-8"
    assert "default-src 'self'" in reply.headers["content-security-policy"]
    granted = server.ask("GET", "/ui", headers=WITH_TOKEN)
    assert (granted.status, granted.body) == (200, reply.body)
    assert server.ask("POST", "/ui").status == 405


def test_openapi_documents_the_token(server: Server) -> None:
    description = server.ask("GET", "/docs.json", headers=WITH_TOKEN).value
    assert description["components"]["securitySchemes"] == {"token": {"type": "http", "scheme": "bearer"}}
    for path, methods in description["paths"].items():
        for operation in methods.values():
            assert ("security" in operation, "401" in operation["responses"]) == (
                path not in ("/livez", "/readyz"),
            ) * 2


def test_bentoml_s_client_and_trainer_predict_send_a_token(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    image = tmp_path / "image.png"
    image.write_bytes(encoded())
    code = (
        "import sys, bentoml, pathlib\n"
        "with bentoml.SyncHTTPClient(sys.argv[1], token=sys.stdin.read()) as client:\n"
        "    print(client.predict(pathlib.Path(sys.argv[2]).read_bytes())['model'])\n"
    )
    command = [sys.executable, "-c", code, server.url, str(image)]
    done = subprocess.run(
        command, env=environment(tmp_path), input=TOKEN, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stdout == f"{server.tag}\n", done.stderr

    predict = ["predict", "--url", server.url, str(image)]
    assert run(predict) == 2
    assert "Authorization: Bearer TOKEN; --token-file names the file that has one" in capsys.readouterr().err
    assert run(["predict", "tiny", str(image), "--token-file", "tokens"]) == 2
    assert "--token-file: only a server wants a token" in capsys.readouterr().err
    assert run([*predict, "--json", "--token-file", str(server.log.parent / "tokens")]) == 0
    monkeypatch.setenv("TRAINER_TOKEN", TOKEN)
    assert run([*predict, "--json"]) == 0
    answers = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [answer["model"] for answer in answers] == [server.tag] * 2


@pytest.mark.parametrize("path", ["/predict", "/schema.json", "/nothing"])
def test_pages_of_listed_origins_may_call(server: Server, path: str) -> None:
    preflight_headers = {
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization,content-type,inference-header-content-length",
    }
    preflight = server.ask(
        "OPTIONS", path, headers={"Origin": ORIGIN, **preflight_headers}
    )  # a browser sends no token with it
    assert (preflight.status, preflight.headers["access-control-allow-origin"]) == (200, ORIGIN)
    assert {"Authorization", "Content-Type"} <= set(preflight.headers["access-control-allow-headers"].split(", "))
    assert "Origin" in preflight.headers["vary"]
    for headers in ({}, WITH_TOKEN):
        reply = server.ask("POST", path, headers={"Origin": ORIGIN, **headers})
        assert reply.status in (400, 401, 404, 405)
        assert reply.headers["access-control-allow-origin"] == ORIGIN
        exposed = "Inference-Header-Content-Length, Retry-After"
        assert (reply.headers["access-control-expose-headers"], reply.headers["vary"]) == (exposed, "Origin")


def test_pages_of_other_origins_may_not_call(server: Server) -> None:
    other = {"Origin": "https://app.example.org"}
    preflight = server.ask("OPTIONS", "/predict", headers={**other, "Access-Control-Request-Method": "POST"})
    reply = server.ask("GET", "/model", headers={**other, **WITH_TOKEN})
    assert (preflight.status, reply.status) == (400, 200)
    for answer in (preflight, reply):
        assert "access-control-allow-origin" not in answer.headers
        assert "Origin" in answer.headers["vary"]


def test_a_token_is_revoked_while_the_server_runs(server: Server) -> None:
    file = server.log.parent / "tokens"
    new = file.with_name("new")
    new.write_text("battery-staple\n")
    new.rename(file)
    time.sleep(1.1)
    for _ in range(10):  # of both workers
        assert server.ask("GET", "/model", headers=WITH_TOKEN).status == 401
        assert server.ask("GET", "/model", headers={"Authorization": "Bearer battery-staple"}).status == 200
    file.write_text(f"{TOKEN}\n")
    time.sleep(1.1)
    assert server.ask("GET", "/model", headers=WITH_TOKEN).status == 200


def test_each_line_of_the_log_is_one_json_object_without_a_token(server: Server) -> None:
    """The last of the tests that use the server: it ends it."""
    server.ask("GET", "/nothing", headers=WITH_TOKEN)
    server.process.terminate()
    assert server.process.wait(20) == 0
    text = server.log.read_text()
    assert TOKEN not in text
    assert "battery-staple" not in text
    lines = [json.loads(line) for line in text.splitlines()]
    assert {frozenset(line) for line in lines} == {
        frozenset(("time", "level", "logger", "message")),
        frozenset(("time", "level", "logger", "message", "path", "status", "code", "ms")),
    }
    missing = [line for line in lines if line.get("code") == "not_found"][-1]
    assert missing["path"] == "/nothing"
    assert (missing["level"], missing["code"], missing["logger"]) == ("WARNING", "not_found", "bentoml.trainer")
    assert missing["message"] == "'/nothing' is no address here; the page at / lists them"
    assert sum(f"serving {server.tag} on litert" in line["message"] for line in lines) == 2


def test_a_wrong_token_file_ends_the_start(tiny_artifact: Path, tmp_path: Path) -> None:
    publish(tiny_artifact, tmp_path)
    (tmp_path / "tokens").write_text("\n")
    done = serve_until_exit(environment(tmp_path), "--arg", f"token_file={tmp_path / 'tokens'}")
    assert done.returncode == 2
    assert f"token_file: {tmp_path / 'tokens'} holds no token" in done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
