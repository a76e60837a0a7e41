"""Starting, draining, stopping, and the settings."""

from __future__ import annotations

import http.client
import io
import shutil
import socket
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import pytest
from expected_answers import assert_same, encoded, expected
from PIL import Image
from server import PROJECT, Reply, Server, environment, form, publish, read_reply, serve_until_exit, serving

from trainer.artifact import store


def test_a_deadline_and_a_full_queue_have_their_codes(tiny_artifact: Path, tmp_path: Path) -> None:
    with serving(tiny_artifact, tmp_path, "--arg", "deadline_ms=0.001") as server:
        reply = server.predict(encoded())
        assert (reply.status, reply.code) == (504, "deadline_exceeded")
        assert server.ask("GET", "/model").status == 200
    with serving(tiny_artifact, tmp_path, "--arg", "queue_length=1") as server:
        replies = replies_to_simultaneous(server, [encoded()] * 64)
        assert {reply.status for reply in replies} == {200, 503}
        refused = [reply for reply in replies if reply.status != 200]
        assert {(reply.code, reply.headers["retry-after"]) for reply in refused} == {("overloaded", "1")}
        # A batch takes no more of the queue than there is.
        batch = server.ask("POST", "/predict_batch", *form(*[("images", encoded())] * 8))
        assert ["probability" in answer for answer in batch.value["predictions"]] == [True] * 8


def replies_to_simultaneous(server: Server, bodies: list[bytes]) -> list[Reply]:
    """The replies to requests that have all arrived before the server reads any of them."""
    with ExitStack() as stack:
        connections = [http.client.HTTPConnection("127.0.0.1", server.port, timeout=30) for _ in bodies]
        for connection in connections:  # accepted now: the server would do that one after the other
            stack.callback(connection.close)
            connection.request("GET", "/model")
            assert read_reply(connection).status == 200
        workers = server.workers()
        for worker in workers:
            worker.suspend()
        for connection, body in zip(connections, bodies, strict=True):
            connection.request("POST", "/predict", body)
        for worker in workers:
            worker.resume()
        return [read_reply(connection) for connection in connections]


def test_outputs_that_are_not_finite_are_an_internal_error(infinite_artifact: Path, tmp_path: Path) -> None:
    with serving(infinite_artifact, tmp_path) as server:
        reply = server.predict(encoded())
        assert (reply.status, reply.code) == (500, "internal")
        assert "not finite" in server.log.read_text()
        buffer = io.BytesIO()
        Image.new("L", (28, 28)).save(buffer, "PNG")
        assert server.predict(buffer.getvalue()).status == 200


def test_sigterm_drains_first(tiny_artifact: Path, tmp_path: Path) -> None:
    with serving(tiny_artifact, tmp_path, "--arg", "drain_delay_s=3") as server:
        server.process.terminate()
        while server.ask("GET", "/readyz").status == 200:
            time.sleep(0.01)
        assert server.predict(encoded()).status == 200
        assert server.ask("GET", "/readyz").code == "not_ready"
        assert server.process.wait(20) == 0
        with pytest.raises(ConnectionRefusedError):
            server.ask("GET", "/livez")


def test_workers_without_their_model_end_the_server(tiny_artifact: Path, tmp_path: Path) -> None:
    with serving(tiny_artifact, tmp_path, "--arg", "workers=2") as server:
        shutil.rmtree(tmp_path / "models")
        for worker in server.workers():
            worker.kill()
        assert server.process.wait(30) == 2
        log = server.log.read_text()
        assert "Traceback" not in log
        (line,) = (line for line in log.splitlines() if "the server ends" in line)
        assert f"the model store {tmp_path} holds no model of trainer" in line


def test_an_old_drain_file_is_removed_at_the_start(tiny_artifact: Path, tmp_path: Path) -> None:
    """A failed liveness probe: preStop makes the file, in a volume that outlives the container."""
    drain = tmp_path / "drain"
    drain.touch()
    with serving(tiny_artifact, tmp_path, TRAINER_DRAIN_FILE=str(drain)) as server:
        assert server.ask("GET", "/readyz").status == 200
        assert not drain.exists()


def test_silent_clients_do_not_delay_the_stop(tiny_artifact: Path, tmp_path: Path) -> None:
    head = b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n"
    with serving(tiny_artifact, tmp_path) as server, ExitStack() as stack:
        for sent in (b"", head[:30], head, head + b"some"):
            connection = stack.enter_context(socket.create_connection(("127.0.0.1", server.port)))
            connection.sendall(sent)
        assert server.predict(encoded()).status == 200
        server.process.terminate()
        assert server.process.wait(20) == 0  # a body may take 30 s otherwise


def test_a_killed_worker_s_waiting_images_are_not_counted(tmp_path: Path) -> None:
    code = (
        "import os, signal, subprocess, sys\n"
        "from trainer.serving.metrics import Metrics\n"
        "metrics = Metrics('m', sys.argv[1])\n"
        "metrics.on_waiting(int(sys.argv[2]))\n"
        "if len(sys.argv) > 3:\n"
        "    subprocess.run([sys.executable, '-c', sys.argv[3], sys.argv[1], '5'])\n"
        "    print(metrics.render().decode())\n"
        "else:\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path), "2", code], capture_output=True, text=True, cwd=PROJECT, check=True
    )
    assert len(list(tmp_path.glob("gauge_livesum_*.db"))) == 1
    assert "trainer_queue_depth 2.0" in done.stdout


@pytest.mark.slow
def test_several_workers_and_tensorflow(tiny_artifact: Path, tmp_path: Path) -> None:
    with serving(tiny_artifact, tmp_path, TRAINER_WORKERS="2", TRAINER_ENGINE="tensorflow") as server:
        wanted = expected(encoded(), tiny_artifact, "tensorflow")
        for _ in range(20):
            assert_same(server.predict(encoded()).value, wanted)
        time.sleep(0.1)  # a worker counts an answer after it has sent it
        counts = {
            line for line in server.ask("GET", "/metrics").body.decode().splitlines() if line.startswith("trainer_req")
        }
        assert 'trainer_requests_total{code="200",endpoint="/predict"} 20.0' in counts
        assert "on tensorflow" in server.log.read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "`trainer fit --dataset builtin:digits` makes one"),
        (["--arg", "model=mnist"], "`trainer fit --dataset builtin:digits` makes one"),
        (["--arg", "modle=mnist"], "--arg modle: no such setting"),
        (["--arg", "threads=none"], "--arg threads: 'none' is wrong"),
    ],
)
def test_serving_nothing_ends_with_an_error(arguments: list[str], message: str, tmp_path: Path) -> None:
    done = serve_until_exit(environment(tmp_path), *arguments)
    assert done.returncode not in (0, 124)
    assert message in done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr


def test_serving_a_changed_model_ends_with_an_error(tiny_artifact: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    publish(tiny_artifact, home)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BENTOML_HOME", str(home))
        with (store.find("tiny").path / "model.tflite").open("ab") as stream:
            stream.write(b"!")
    done = serve_until_exit(environment(home) | {"TRAINER_MODEL": "tiny:latest"})
    assert done.returncode == 2
    assert "its sha256 differs" in done.stdout + done.stderr


def test_an_engine_without_its_files_ends_with_an_error(tiny_artifact: Path, tmp_path: Path) -> None:
    packed = tmp_path / "packed"  # as an image has it
    shutil.copytree(tiny_artifact, packed, ignore=shutil.ignore_patterns("saved_model"))
    publish(packed, tmp_path / "home")
    done = serve_until_exit(environment(tmp_path / "home") | {"TRAINER_ENGINE": "tensorflow"})
    assert done.returncode == 2
    assert "saved_model: is missing" in done.stdout + done.stderr


def test_importing_the_service_needs_no_model_and_nothing_of_training(tmp_path: Path) -> None:
    code = (
        "import sys, service, os; "
        "heavy = {'tensorflow', 'keras', 'wandb', 'typer', 'matplotlib', 'sklearn', 'tensorflow_datasets'}; "
        "heavy |= {'optuna', 'ray', 'opentelemetry'}; "
        "print(sorted({name.split('.')[0] for name in sys.modules} & heavy), os.environ['BENTOML_DO_NOT_TRACK'])"
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
    assert done.stdout == "[] True\n"
