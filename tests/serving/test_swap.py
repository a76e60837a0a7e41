"""Swap in place: new versions, good and bad, while a server answers."""

from __future__ import annotations

import shutil
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml
from expected_answers import assert_same, encoded, expected
from server import Server, serving
from tiny_model import CLASS_NAMES, export_other_classes, export_tiny_model, write_tiny_spec

from trainer.artifact import store

IMAGE = encoded()
WATCH_S = 0.2
TIMEOUT_S = 60  # for a check, which leaves most of the CPU to others


@dataclass
class Traffic:
    """Requests, one after the other, and the answers to them."""

    server: Server
    home: Path
    stopped: threading.Event = field(default_factory=threading.Event)
    failures: list[Any] = field(default_factory=list)
    answers: dict[str, list[dict[str, Any]]] = field(default_factory=dict)  # by the version that they name

    def run(self) -> None:
        while not self.stopped.is_set():
            reply = self.server.predict(IMAGE)
            if reply.status == 200:
                self.answers.setdefault(reply.value["model"], []).append(reply.value)
            else:
                self.failures.append(reply)
            time.sleep(0.005)  # the checks need the CPUs, too

    def count(self) -> int:
        return sum(map(len, self.answers.values()))

    def check(self, **artifacts: Path) -> None:
        """Fail unless every request so far was answered, by these versions, and as each of them answers."""
        assert self.failures == []
        assert set(self.answers) <= set(artifacts)
        for tag, answers in self.answers.items():
            wanted = expected(IMAGE, artifacts[tag])
            for answer in answers:
                assert_same(answer, wanted)


@contextmanager
def in_store(home: Path) -> Iterator[None]:
    """`trainer.artifact.store` reads and writes the store at `home`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BENTOML_HOME", str(home))
        yield


def add(artifact: Path, home: Path) -> str:
    """Put the artifact into the store as the promoted version of `tiny`, as `publish` does but without BentoML; its
    tag.
    """
    versions = home / "models" / "tiny"
    draft, version = home / "draft", uuid.uuid4().hex
    shutil.copytree(artifact, draft)
    description = {"labels": {"trainer": "fit"}, "creation_time": datetime.now(UTC).isoformat()}
    (draft / "model.yaml").write_text(yaml.safe_dump(description))
    draft.rename(versions / version)
    (versions / "latest").write_text(version)
    return f"tiny:{version}"


def folder_of(tag: str, home: Path) -> Path:
    return home / "models" / tag.replace(":", "/")


def served(server: Server) -> str:
    return str(server.ask("GET", "/model").value["model"])


def wait_for(condition: Callable[[], bool], server: Server) -> None:
    deadline = time.monotonic() + TIMEOUT_S
    while not condition():
        assert time.monotonic() < deadline, server.log.read_text()
        time.sleep(0.05)


def metric(server: Server, name: str) -> dict[str, float]:
    """Values of a gauge, by its label."""
    lines = server.ask("GET", "/metrics").body.decode().splitlines()
    samples = (line.rpartition(" ") for line in lines if line.startswith(f"{name}{{"))
    return {series.split('"')[1]: float(value) for series, _, value in samples}


@pytest.fixture(scope="module")
def traffic(tiny_artifact: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Traffic]:
    """A server that watches its store, and a client that never pauses."""
    home = tmp_path_factory.mktemp("swap")
    with serving(tiny_artifact, home, "--arg", f"watch_s={WATCH_S}", "--arg", "model=tiny") as server:
        client = Traffic(server, home)
        thread = threading.Thread(target=client.run)
        thread.start()
        try:
            yield client
        finally:
            client.stopped.set()
            thread.join()


@pytest.fixture(scope="module")
def other_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export_tiny_model(tmp_path_factory.mktemp("other") / "export", seed=2)


def alter_bytes(folder: Path, _: Path) -> None:
    with (folder / "model.tflite").open("ab") as stream:
        stream.write(b"!")


def truncate(folder: Path, _: Path) -> None:
    network = (folder / "model.tflite").read_bytes()
    (folder / "model.tflite").write_bytes(network[: len(network) // 2])
    write_tiny_spec(folder)


def replace_network(folder: Path, other: Path) -> None:
    shutil.copy(other / "model.tflite", folder / "model.tflite")
    write_tiny_spec(folder)


def add_a_label(folder: Path, _: Path) -> None:
    (folder / "reference.npz").unlink()  # it has ten, too
    write_tiny_spec(folder, (*CLASS_NAMES, "eleven"))


def alter_reference(folder: Path, _: Path) -> None:
    (folder / "reference.npz").write_bytes(b"no archive")
    write_tiny_spec(folder)


def leave_half(folder: Path, _: Path) -> None:
    (folder / "model.tflite").unlink()


@pytest.mark.parametrize(
    ("spoil", "network", "reason"),
    [
        (alter_bytes, "tiny_artifact", "model.tflite: is not the file that was saved: its sha256 differs"),
        (truncate, "tiny_artifact", "The model is not a valid Flatbuffer buffer"),
        (replace_network, "infinite_artifact", "its network has outputs that are not finite"),
        (replace_network, "other_weights", "does not answer as recorded when it was exported: a probability differs"),
        (add_a_label, "tiny_artifact", "its network has 10 probabilities for 11 class names"),
        (alter_reference, "tiny_artifact", "reference.npz: damaged: an archive with images"),
        (leave_half, "tiny_artifact", "not served: model.tflite is missing"),
    ],
)
def test_a_bad_version_never_answers(
    spoil: Callable[[Path, Path], None],
    network: str,
    reason: str,
    traffic: Traffic,
    tiny_artifact: Path,
    tmp_path: Path,
    request: pytest.FixtureRequest,
) -> None:
    server, old = traffic.server, served(traffic.server)
    bad = shutil.copytree(tiny_artifact, tmp_path / "bad")
    spoil(bad, request.getfixturevalue(network))
    tag, before = add(bad, traffic.home), traffic.count()
    wait_for(lambda: f"{tag} is not served: " in server.log.read_text(), server)
    wait_for(lambda: traffic.count() > before, server)
    assert served(server) == old
    assert metric(server, "trainer_model_failed")[tag] == 1
    described = server.ask("GET", f"/v2/models/{old.partition(':')[0]}").value
    assert described["parameters"]["failed_version"] == tag.partition(":")[2]
    assert reason.removeprefix("not served: ") in described["parameters"]["reason"]
    time.sleep(3 * WATCH_S)  # it is not tried again
    (line,) = (line for line in server.log.read_text().splitlines() if tag in line)
    assert " WARNING " in line
    assert reason in line
    assert f"{old} stays" in line
    assert str(traffic.home) not in line
    with in_store(traffic.home):
        store.promote(old)
    wait_for(lambda: metric(server, "trainer_model_failed")[tag] == 0, server)
    traffic.check(**{old: tiny_artifact})


def test_a_good_version_takes_over_and_its_end_brings_the_one_before_back(
    traffic: Traffic, tiny_artifact: Path, other_weights: Path, tmp_path: Path
) -> None:
    """A version with other classes and another input, half-written at first; then one without reference answers."""
    server, old = traffic.server, served(traffic.server)
    other = export_other_classes(tmp_path / "other")
    draft = shutil.copytree(other, tmp_path / "draft")
    (draft / "model.tflite").unlink()
    new = add(draft, traffic.home)
    wait_for(lambda: f"{new} is not served: " in server.log.read_text(), server)
    shutil.copy(other / "model.tflite", folder_of(new, traffic.home) / "model.tflite")
    wait_for(lambda: new in traffic.answers, server)
    assert metric(server, "trainer_model_info") == {old: 0, new: 1}
    assert metric(server, "trainer_model_failed")[new] == 0
    description = server.ask("GET", "/model").value
    assert (description["model"], description["labels"]) == (new, ["cat", "dog"])
    assert (description["input"]["height"], description["input"]["width"]) == (20, 24)
    assert server.ask("GET", "/docs.json").value["info"]["version"] == new
    assert server.ask("POST", "/explain", IMAGE).status == 200

    shutil.rmtree(folder_of(new, traffic.home))
    assert server.ask("POST", "/explain", IMAGE).status == 200
    wait_for(lambda: served(server) == old, server)
    older = shutil.copytree(other_weights, tmp_path / "older")
    (older / "reference.npz").unlink()
    write_tiny_spec(older)
    last = add(older, traffic.home)
    wait_for(lambda: last in traffic.answers, server)
    with in_store(traffic.home):
        store.promote(old)
    wait_for(lambda: served(server) == old, server)
    traffic.check(**{old: tiny_artifact, new: other, last: older})


def test_a_store_in_any_state_takes_nothing_away(traffic: Traffic, tiny_artifact: Path) -> None:
    server, tag = traffic.server, served(traffic.server)
    models, version = traffic.home / "models", folder_of(tag, traffic.home)
    description = (version / "model.yaml").read_bytes()

    def wait_for_warning() -> None:
        seen = server.log.read_text().count(f"{tag} stays")
        wait_for(lambda: server.log.read_text().count(f"{tag} stays") > seen, server)

    models.rename(traffic.home / "elsewhere")
    wait_for_warning()
    models.touch()
    time.sleep(2 * WATCH_S)
    models.unlink()
    (traffic.home / "elsewhere").rename(models)
    time.sleep(2 * WATCH_S)
    (version / "model.yaml").write_text("creation_time: never\nlabels: {trainer: fit}\n")
    wait_for_warning()
    (version / "model.yaml").write_bytes(description[:40])
    before = traffic.count()
    wait_for(lambda: traffic.count() > before, server)
    (version / "model.yaml").write_bytes(description)
    assert served(server) == tag
    assert traffic.failures == []
    assert_same(server.predict(IMAGE).value, expected(IMAGE, tiny_artifact))


@pytest.mark.slow
def test_all_workers_follow_and_a_restarted_one_finds_the_version(
    tiny_artifact: Path, other_weights: Path, tmp_path: Path
) -> None:
    with serving(tiny_artifact, tmp_path, TRAINER_WATCH_S=str(WATCH_S), TRAINER_WORKERS="2") as server:
        new = add(other_weights, tmp_path)
        both = f"{new} has taken over from {server.tag}"
        wait_for(lambda: server.log.read_text().count(both) == 2, server)
        shutil.rmtree(folder_of(server.tag, tmp_path))
        server.workers()[0].kill()
        wait_for(lambda: server.log.read_text().count(f"serving {new} on litert") == 3, server)
        answers = [server.predict(IMAGE).value for _ in range(20)]
        assert {answer["model"] for answer in answers} == {new}
        assert_same(answers[0], expected(IMAGE, other_weights))
        assert metric(server, "trainer_model_info") == {server.tag: 0, new: 1}
