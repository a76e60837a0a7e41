from __future__ import annotations

import io
import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tiny_model import LABELS, PIXELS

from trainer import store
from trainer.serving import artifact
from trainer.serving.engine import load_engine
from trainer.serving.pixels import decode
from trainer.serving.prediction import prediction

PROJECT = Path(__file__).parents[1]
BENTOML = Path(sys.executable).parent / "bentoml"
READY_TIMEOUT_S = 60


@dataclass
class Server:
    url: str
    tag: str
    process: subprocess.Popen[bytes]
    log: Path

    def ask(self, path: str, body: bytes | None = None, content_type: str | None = None) -> tuple[int, Any]:
        """POST `body`, or GET without one; the status and the JSON."""
        request = urllib.request.Request(self.url + path, data=body)
        if content_type:
            request.add_header("Content-Type", content_type)
        try:
            with urllib.request.urlopen(request, timeout=10) as response:
                return response.status, json.load(response)
        except urllib.error.HTTPError as error:
            with error:
                return error.code, json.load(error)


def environment(home: Path) -> dict[str, str]:
    """As a user has it, not as the tests do: telemetry has to be off without being told."""
    ours = {key: value for key, value in os.environ.items() if key not in ("BENTOML_DO_NOT_TRACK", "TRAINER_MODEL")}
    return ours | {"BENTOML_HOME": str(home)}


def serve_in_vain(variables: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    """`bentoml serve` where it should end by itself."""
    command = [str(BENTOML), "serve", "--host", "127.0.0.1", "--port", "0", *arguments]
    return subprocess.run(command, cwd=PROJECT, env=variables, capture_output=True, text=True, timeout=60, check=False)


@pytest.fixture(scope="module")
def server(tiny_artifact: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """`bentoml serve` with one stored model; ends with SIGTERM."""
    home = tmp_path_factory.mktemp("served")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BENTOML_HOME", str(home))
        tag = store.publish(tiny_artifact, "tiny")
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    log = home / "serve.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [BENTOML, "serve", "--host", "127.0.0.1", "--port", str(port)],
            cwd=PROJECT,
            env=environment(home),
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    url = f"http://127.0.0.1:{port}"
    try:
        wait_until_ready(url, process, log)
        yield Server(url, tag, process, log)
    finally:
        process.terminate()
        process.wait(30)


def wait_until_ready(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + READY_TIMEOUT_S
    while time.monotonic() < deadline:
        assert process.poll() is None, log.read_text()
        try:
            with urllib.request.urlopen(f"{url}/readyz", timeout=2):
                return
        except (urllib.error.URLError, TimeoutError, ConnectionError):
            time.sleep(0.1)
    pytest.fail(f"not ready: {log.read_text()}")


def encoded(format: str = "PNG") -> bytes:
    pixels = np.random.default_rng(3).integers(0, 256, (28, 28), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format)
    return buffer.getvalue()


def expected(image: bytes, folder: Path) -> dict[str, Any]:
    engine = load_engine(artifact.load(folder))
    return prediction(engine.predict(decode(image, PIXELS)[None])[0], LABELS)


@pytest.mark.parametrize("format", ["PNG", "JPEG", "BMP", "GIF", "WebP"])
def test_answer_is_the_engine_s(server: Server, tiny_artifact: Path, format: str) -> None:
    image = encoded(format)
    status, answer = server.ask("/predict", image, "application/octet-stream")
    assert status == 200
    assert list(answer) == ["label", "index", "probability", "top", "model"]
    wanted = expected(image, tiny_artifact)
    assert answer["model"] == server.tag
    assert [score["index"] for score in answer["top"]] == [score["index"] for score in wanted["top"]]
    assert (answer["label"], answer["index"]) == (wanted["label"], wanted["index"])
    assert answer["top"][0] == {key: answer[key] for key in ("label", "index", "probability")}
    np.testing.assert_allclose(
        [score["probability"] for score in answer["top"]],
        [score["probability"] for score in wanted["top"]],
        atol=2e-6,
    )


@pytest.mark.parametrize(
    "content_type",
    ["application/x-www-form-urlencoded", "text/plain", "application/json", "application/vnd.bentoml+pickle"],
)
def test_the_content_type_does_not_matter(server: Server, content_type: str) -> None:
    """The first is what `curl --data-binary` sends."""
    status, answer = server.ask("/predict", encoded(), content_type)
    assert (status, answer["model"]) == (200, server.tag)


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"", 400, "empty_body"),
        (b"hello", 415, "unsupported_type"),
        (b"http://127.0.0.1:1/x.png", 415, "unsupported_type"),
        (encoded()[:-20], 422, "corrupt_image"),
        (encoded("BMP")[:18] + b"\xff\xff\x00\x00\xff\xff\x00\x00" + encoded("BMP")[26:], 413, "too_many_pixels"),
    ],
)
def test_errors_are_json_with_a_code(server: Server, body: bytes, status: int, code: str) -> None:
    got, answer = server.ask("/predict", body, "image/png")
    assert (got, answer["error"]["code"]) == (status, code)
    assert list(answer) == ["error"]
    assert list(answer["error"]) == ["code", "message"]


def test_model_view(server: Server) -> None:
    status, answer = server.ask("/model")
    assert status == 200
    assert answer == {
        "model": server.tag,
        "labels": list(LABELS),
        "input": {"height": 28, "width": 28, "channels": 1, "normalize": "none"},
        "metrics": {"test_accuracy": 0.5, "val_accuracy": 0.25},
    }


def test_bentoml_s_own_client(server: Server, tmp_path: Path) -> None:
    """In a process of its own: the client warns when it is imported and when it is collected."""
    (tmp_path / "image.png").write_bytes(encoded())
    code = (
        "import sys, bentoml\n"
        "with bentoml.SyncHTTPClient(sys.argv[1]) as client:\n"
        "    print(client.predict(open(sys.argv[2], 'rb').read())['model'])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, server.url, str(tmp_path / "image.png")],
        env=environment(tmp_path),
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout.strip() == server.tag


def test_the_log_names_the_model_and_no_request(server: Server) -> None:
    server.ask("/predict", encoded())
    log = server.log.read_text()
    assert f"serving {server.tag}" in log
    assert "/predict" not in log
    assert "trace" not in log.lower()


def test_sigterm_ends_it(server: Server) -> None:
    """The last of the tests that use the server."""
    server.process.terminate()
    assert server.process.wait(20) == 0
    with pytest.raises(urllib.error.URLError):
        urllib.request.urlopen(f"{server.url}/livez", timeout=2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "`trainer fit --dataset builtin:digits` makes one"),
        (["--arg", "model=mnist"], "`trainer fit --dataset builtin:digits` makes one"),
        (["--arg", "modle=mnist"], "modle"),
    ],
)
def test_serving_nothing_ends_with_an_error(arguments: list[str], message: str, tmp_path: Path) -> None:
    done = serve_in_vain(environment(tmp_path), *arguments)
    assert done.returncode not in (0, 124)
    assert message in done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr


def test_serving_a_changed_model_ends_with_an_error(tiny_artifact: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BENTOML_HOME", str(home))
        store.publish(tiny_artifact, "tiny")
        with (store.find("tiny").path / "model.tflite").open("ab") as stream:
            stream.write(b"!")
    done = serve_in_vain(environment(home) | {"TRAINER_MODEL": "tiny:latest"})
    assert done.returncode == 2
    assert "its sha256 differs" in done.stdout + done.stderr


def test_importing_the_service_is_light_and_needs_no_model(tmp_path: Path) -> None:
    code = (
        "import sys, service, os; "
        "heavy = {'tensorflow', 'keras', 'wandb', 'typer', 'matplotlib', 'sklearn', 'tensorflow_datasets'}; "
        "print(sorted({name.split('.')[0] for name in sys.modules} & heavy), os.environ['BENTOML_DO_NOT_TRACK']); "
        "ours = {name for name in sys.modules if name.startswith('trainer.')}; "
        "print(sorted(name for name in ours if not name.startswith('trainer.serving')))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=PROJECT,
        env=environment(tmp_path),
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout.splitlines() == ["[] True", "['trainer.config', 'trainer.store']"]
