from __future__ import annotations

import json
import logging
import re
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from trainer.errors import Interrupted
from trainer.reporting import metrics, report
from trainer.reporting.advice import Judgement
from trainer.runs import tracking

KEY = "k" * 40
LOOPBACK = "http://127.0.0.1:{}"


@pytest.fixture(autouse=True)
def _fresh_wandb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """W&B as a user without settings finds it; it reads the environment once per process, unless torn down."""
    for variable in ("WANDB_DIR", "WANDB_MODE", "WANDB_PROJECT", "WANDB_SWEEP_ID"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    caplog.set_level(logging.INFO, "trainer")
    yield
    end_service()


def end_service() -> None:
    """Only the end of W&B's service process flushes what it writes."""
    if "wandb" in sys.modules:
        import wandb

        wandb.teardown()


def start(folder: Path, mode: str, **options: Any) -> tracking.Tracker:
    arguments: dict[str, Any] = {"config": {"epochs": 3}, "name": "n", "run_id": None, "resume": False} | options
    return tracking.start(mode, run_dir=folder, **arguments)


def messages(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == "trainer"]


def offline_runs(folder: Path) -> list[Path]:
    end_service()
    return sorted(folder.glob("wandb/offline-run-*/*.wandb"))


class Record:
    """What W&B wrote: config, rows of the history and summary by key, artifacts' files, and the run's own facts."""

    def __init__(self, file: Path) -> None:
        from wandb.proto.wandb_internal_pb2 import Record as Message

        self.config: dict[str, Any] = {}
        self.history: list[dict[str, Any]] = []
        self.summary: dict[str, Any] = {}
        self.artifact_files: dict[str, str] = {}  # path in the artifact → path on this machine
        for data in _chunks(file.read_bytes()):
            message = Message.FromString(data)
            kind = message.WhichOneof("record_type")
            if kind == "run":
                self.id, self.name, self.project = message.run.run_id, message.run.display_name, message.run.project
                self.config |= {item.key: json.loads(item.value_json) for item in message.run.config.update}
            elif kind == "config":
                self.config |= {item.key: json.loads(item.value_json) for item in message.config.update}
            elif kind == "history":
                items = message.history.item
                self.history.append({item.key or item.nested_key[0]: json.loads(item.value_json) for item in items})
            elif kind == "summary":
                items = message.summary.update
                self.summary |= {item.key or item.nested_key[0]: json.loads(item.value_json) for item in items}
            elif kind == "artifact":
                self.artifact_files |= {file.path: file.local_path for file in message.artifact.manifest.contents}
            elif kind == "exit":
                self.exit_code = message.exit.exit_code


def _chunks(data: bytes) -> Iterator[bytes]:
    """The records of a LevelDB log: blocks of 32 KiB; a header of checksum, length, and whole/first/middle/last."""
    position, parts = 7, b""  # W&B's own header
    while position < len(data):
        if (left := 32768 - position % 32768) < 7:
            position += left  # padding
            continue
        _, length, kind = struct.unpack_from("<IHB", data, position)
        parts += data[position + 7 : position + 7 + length]
        position += 7 + length
        if kind in (1, 4):
            yield parts
            parts = b""


def test_an_offline_run_holds_config_history_summary_and_report(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    tracker = start(tmp_path, "auto", config={"epochs": 3, "image_size": None}, run_id="abc", name="mnist-1")
    tracker.on_epoch({"epoch": 1, "val_accuracy": 0.75}, step=10, epochs=9)
    tracker.on_epoch({"epoch": 2, "val_accuracy": 0.5}, step=20, epochs=9)
    evaluation = metrics.evaluate(np.array([0, 1], np.int32), np.array([[0.9, 0.1], [0.8, 0.2]], np.float32))
    mistakes = [metrics.Mistake("a/1.jpg", np.full((8, 8, 1), 7, np.uint8), 1, 0, 0.8, np.eye(8, dtype=np.float32))]
    subject = report.ReportFacts(
        "mnist",
        "tfds:mnist",
        "trainer fit",
        ["a", "ü"],
        test_images_note="kept apart for this figure",
        trained_on="tfds:mnist",
        train_images=5,
        val_images=3,
        val_accuracy=0.5,
        judgement=Judgement("bad", "no better than guessing", []),
        trust=None,
        given_options={},
        other_settings={},
        seconds={},
        model_bytes=1,
        latency_s=0.001,
    )
    files = report.write(tmp_path / "r", subject, evaluation=evaluation, history=None, mistakes=mistakes)
    tracker.log_report(files, mistakes, ["a", "ü"], evaluation)
    tracker.summary({"tag": "mnist:x"})
    tracker.finish(0)

    (file,) = offline_runs(tmp_path)
    assert messages(caplog) == []  # nobody has asked for W&B
    assert capfd.readouterr().out == ""
    record = Record(file)
    assert (record.id, record.name, record.project, record.exit_code) == ("abc", "mnist-1", "trainer", 0)
    assert record.config["epochs"] == 3
    assert record.config["image_size"] is None
    assert [(row["_step"], row["epoch"], row["val_accuracy"]) for row in record.history] == [
        (10, 1, 0.75),
        (20, 2, 0.5),
    ]
    tables = {"confusion_matrix_table", "per_class_accuracy", "worst_mistakes"}
    assert tables | {f"report/{name}" for name in files} <= set(record.history[-1])
    assert record.summary["tag"] == "mnist:x"
    media = file.parent / "files" / "media"
    assert len(list(media.glob("images/report/*.png"))) == len(files) - 1
    (page,) = media.glob("html/report/page_*.html")
    assert page.read_bytes() == files["page"].read_bytes()
    written = {path.name.rsplit("_", 2)[0]: json.loads(path.read_text()) for path in media.glob("table/*.json")}
    assert written["confusion_matrix_table"]["data"] == [["a", "a", 1], ["ü", "a", 1]]
    assert written["per_class_accuracy"]["data"] == [["a", 1, 1.0, 0.5], ["ü", 1, 0.0, 0.0]]
    assert written["worst_mistakes"]["data"] == [["Image", "a/1.jpg", "ü", "a", 0.8]]
    (picture,) = [Path(local) for path, local in record.artifact_files.items() if path.endswith(".png")]
    with Image.open(picture) as image:
        np.testing.assert_array_equal(np.asarray(image), mistakes[0].image[:, :, 0])


def test_a_resumed_run_keeps_its_id_and_a_failed_one_its_reason(tmp_path: Path) -> None:
    first = start(tmp_path, "offline")
    first.finish(3, "the loss is not finite")
    second = start(tmp_path, "offline", run_id=first.id, resume=True)
    second.finish(0)
    records = [Record(file) for file in offline_runs(tmp_path)]
    assert [record.id for record in records] == [first.id, second.id] == [first.id] * 2
    failed = records[0] if records[0].exit_code else records[1]
    assert failed.exit_code == 3
    assert failed.summary["error"] == "the loss is not finite"


def test_wandbs_own_variables_are_respected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable, value in {"RUN_ID": "fromenv", "DIR": str(tmp_path / "elsewhere"), "PROJECT": "mine"}.items():
        monkeypatch.setenv(f"WANDB_{variable}", value)
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    tracker = start(tmp_path, "auto")
    tracker.finish(0)
    assert tracker.id == "fromenv"
    (file,) = offline_runs(tmp_path / "elsewhere")
    assert Record(file).project == "mine"


@pytest.mark.filterwarnings("ignore:.*sweep.yaml:pytest.PytestUnraisableExceptionWarning")  # W&B leaves it open
def test_the_agents_config_does_not_clash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parameters = tmp_path / "sweep.yaml"
    parameters.write_text("wandb_version: 1\nlearning_rate:\n  value: 1\n")
    for variable, value in {"SWEEP_ID": "s1", "RUN_ID": "r1", "SWEEP_PARAM_PATH": str(parameters)}.items():
        monkeypatch.setenv(f"WANDB_{variable}", value)
    tracker = start(tmp_path, "offline", config={"learning_rate": 1.0, "epochs": 3})
    tracker.finish(0)
    assert tracker.id == "r1"
    config = Record(offline_runs(tmp_path)[0]).config
    assert (config["learning_rate"], config["epochs"]) == (1, 3)


@pytest.mark.parametrize(
    ("mode", "key", "said"), [("online", "", "there is no API key"), ("auto", "short", "40+ characters")]
)
def test_without_a_usable_key_offline(
    mode: str, key: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    if key:
        monkeypatch.setenv("WANDB_API_KEY", key)
    start(tmp_path, mode).finish(0)
    warning, how_to_sync = messages(caplog)
    assert said in warning
    assert "`wandb sync " in how_to_sync


@pytest.mark.parametrize(("listens", "key_from"), [(False, "environment"), (True, "netrc")], ids=["refused", "mute"])
def test_a_server_that_does_not_answer(
    listens: bool,
    key_from: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        if listens:
            server.listen()
        monkeypatch.setenv("WANDB_BASE_URL", LOOPBACK.format(server.getsockname()[1]))
        if key_from == "environment":
            monkeypatch.setenv("WANDB_API_KEY", KEY)
        else:
            (tmp_path / "netrc").write_text(
                f"machine 127.0.0.1:{server.getsockname()[1]}\n  login user\n  password {KEY}\n"
            )
        monkeypatch.setattr(tracking, "INIT_TIMEOUT_S", 2)
        tracker = start(tmp_path, "auto")
        tracker.on_epoch({"loss": 1.0}, step=1, epochs=9)
        tracker.finish(0)
    assert "tracking offline" in messages(caplog)[0]
    (file,) = offline_runs(tmp_path)
    assert Record(file).history[0]["loss"] == 1.0


class _Server(BaseHTTPRequestHandler):
    """As much of W&B's server as the start of a run needs."""

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        data: dict[str, Any] = {}
        if self.path == "/graphql" and re.search(r"mutation UpsertBucket\b", json.loads(body)["query"]):
            project = {"id": "p", "name": "trainer", "entity": {"id": "e", "name": "team"}}
            bucket = {"id": "b", "name": "abc", "displayName": "n", "config": "{}", "project": project}
            data = {"upsertBucket": {"bucket": bucket, "inserted": True}}
        answer = json.dumps({"data": data}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_: object) -> None:
        pass


def test_a_server_that_goes_away_does_not_hold_up_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(tracking, "FINISH_TIMEOUT_S", 2)
    with ThreadingHTTPServer(("127.0.0.1", 0), _Server) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("WANDB_BASE_URL", LOOPBACK.format(server.server_port))
        monkeypatch.setenv("WANDB_API_KEY", KEY)
        tracker = start(tmp_path, "auto", run_id="abc")
        server.shutdown()
    tracker.on_epoch({"loss": 1.0}, step=1, epochs=9)
    tracker.finish(0)
    online, failed = messages(caplog)
    assert re.fullmatch(r"tracked at http://127\.0\.0\.1:\d+/team/trainer/runs/abc", online)
    (file,) = tmp_path.glob("wandb/run-*/*.wandb")
    assert failed == (
        f"W&B failed and the run goes on: Timed out finishing run.; `wandb sync {file.parent}` uploads it"
    )


class _Broken:
    """A run of which nothing but its folder works."""

    dir = "d/wandb/run-1/files"

    def __init__(self, error: Exception) -> None:
        self.error = error

    def __getattr__(self, name: str) -> Any:
        raise self.error


def test_wandbs_failures_are_said_once_and_never_raised(caplog: pytest.LogCaptureFixture) -> None:
    tracker = tracking.Tracker("x", _Broken(RuntimeError("gone\nadvice")))
    tracker.on_epoch({}, step=1, epochs=9)
    tracker.summary({})
    tracker.finish(1, "x")
    assert messages(caplog) == ["W&B failed and the run goes on: gone; `wandb sync d/wandb/run-1` uploads it"]


def test_a_signal_is_no_failure_of_wandbs() -> None:
    tracker = tracking.Tracker("x", _Broken(Interrupted("SIGTERM", 143)))
    with pytest.raises(Interrupted):
        tracker.on_epoch({}, step=1, epochs=9)


@pytest.mark.parametrize(("mode", "variable"), [("disabled", "online"), ("auto", "disabled")])
def test_disabled_imports_nothing(mode: str, variable: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", variable)
    code = (
        "import sys; from pathlib import Path; from trainer.runs import tracking;"
        f"folder = Path({str(tmp_path)!r});"
        f"t = tracking.start({mode!r}, config={{}}, run_dir=folder, name='n', run_id='kept', resume=False);"
        "t.on_epoch({}, step=1, epochs=9); t.log_report({}, [], [], None); t.summary({}); t.finish(0);"
        "assert t.id == 'kept'; assert 'wandb' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    assert not list(tmp_path.iterdir())
