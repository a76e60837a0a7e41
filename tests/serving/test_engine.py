from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from trainer.serving import engine as engine_module
from trainer.serving.artifact import ArtifactError, load
from trainer.serving.engine import Engine, available_cpus, cgroup_cpus, check_engine, load_engine


@pytest.fixture(scope="module")
def images() -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (37, 28, 28, 1), np.uint8)


@pytest.fixture(scope="module")
def litert(tiny_artifact: Path) -> Engine:
    return load_engine(load(tiny_artifact))


def test_probabilities(litert: Engine, images: NDArray[np.uint8]) -> None:
    probabilities = litert.predict(images)
    assert probabilities.shape == (37, 10)
    assert probabilities.dtype == np.float32
    np.testing.assert_allclose(probabilities.sum(1), 1, atol=1e-5)
    assert len(set(probabilities.argmax(1).tolist())) > 1


def test_any_order_of_batch_sizes_gives_the_same_answers(litert: Engine, images: NDArray[np.uint8]) -> None:
    whole = litert.predict(images)
    for size in (1, 8, 2, 37, 1, 8):
        parts = [litert.predict(images[start : start + size]) for start in range(0, 37, size)]
        np.testing.assert_allclose(np.concatenate(parts), whole, atol=1e-6)


def test_an_answer_is_not_overwritten_by_the_next(litert: Engine, images: NDArray[np.uint8]) -> None:
    first = litert.predict(images[:1])
    kept = first.copy()
    litert.predict(images[1:2])
    np.testing.assert_array_equal(first, kept)


def test_threads_take_turns(litert: Engine, images: NDArray[np.uint8]) -> None:
    expected = litert.predict(images)
    wrong: list[int] = []

    def ask(size: int) -> None:
        for start in range(0, 36, size):
            got = litert.predict(images[start : start + size])
            if not np.allclose(got, expected[start : start + size], atol=1e-6):
                wrong.append(start)

    threads = [threading.Thread(target=ask, args=(size,)) for size in (1, 2, 3, 4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_both_engines_agree(tiny_artifact: Path, litert: Engine, images: NDArray[np.uint8]) -> None:
    tensorflow = load_engine(load(tiny_artifact), "tensorflow")
    expected = tensorflow.predict(images)
    assert expected.shape == (37, 10)
    assert expected.dtype == np.float32
    np.testing.assert_allclose(litert.predict(images), expected, atol=0.05)
    np.testing.assert_array_equal(litert.predict(images).argmax(1), expected.argmax(1))


def test_wrong_input_is_refused(litert: Engine) -> None:
    with pytest.raises((ValueError, RuntimeError), match="dimension"):
        litert.predict(np.zeros((2, 20, 28, 1), np.uint8))
    with pytest.raises(ValueError, match="type"):
        litert.predict(np.zeros((1, 28, 28, 1), np.float32))


def test_unknown_engine_and_missing_network(tiny_artifact: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not one of litert, tensorflow"):
        load_engine(load(tiny_artifact), "onnx")
    (tmp_path / "model.tflite").write_bytes(b"no network")
    with pytest.raises(ValueError, match="model"):
        engine_module.LiteRTEngine(tmp_path / "model.tflite")


def test_tensorflow_is_refused_where_it_cannot_run(
    tiny_artifact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = tmp_path / "image"
    shutil.copytree(tiny_artifact, image, ignore=shutil.ignore_patterns("saved_model"))
    with pytest.raises(ArtifactError, match="saved_model: is missing"):
        check_engine(load(image), "tensorflow")
    check_engine(load(image), "litert")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ArtifactError, match="tensorflow, which is not installed"):
        load_engine(load(tiny_artifact), "tensorflow")


def test_litert_is_quiet_and_imports_no_tensorflow(tiny_artifact: Path) -> None:
    code = (
        "import sys, numpy as np\n"
        "from pathlib import Path\n"
        "from trainer.serving.artifact import load\n"
        "from trainer.serving.engine import load_engine\n"
        "engine = load_engine(load(Path(sys.argv[1])))\n"
        "engine.predict(np.zeros((1, 28, 28, 1), np.uint8))\n"
        "print(sorted({name.split('.')[0] for name in sys.modules} & {'tensorflow', 'keras', 'bentoml', 'typer'}))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tiny_artifact)], capture_output=True, text=True, timeout=60, check=True
    )
    assert (done.stdout, done.stderr) == ("[]\n", "")


def test_available_cpus_is_at_most_the_affinity() -> None:
    assert 1 <= available_cpus() <= len(os.sched_getaffinity(0))


@pytest.mark.parametrize(("quota", "expected"), [("50000 100000", 1), ("100000 100000", 1), ("max 100000", None)])
def test_available_cpus_obeys_the_quota(
    quota: str, expected: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cpu.max").write_text(f"{quota}\n")
    (tmp_path / "membership").write_text("0::/\n")
    monkeypatch.setattr(engine_module, "CGROUPS", tmp_path)
    monkeypatch.setattr(engine_module, "MEMBERSHIP", tmp_path / "membership")
    assert available_cpus() == (expected or len(os.sched_getaffinity(0)))


def test_version_2_takes_the_tightest_quota_on_the_way_up(tmp_path: Path) -> None:
    leaf = tmp_path / "a" / "b"
    leaf.mkdir(parents=True)
    (leaf / "cpu.max").write_text("max 100000\n")
    (tmp_path / "a" / "cpu.max").write_text("250000 100000\n")
    assert cgroup_cpus("0::/a/b\n", tmp_path) == 2.5
    assert cgroup_cpus("0::/\n", tmp_path) == float("inf")


def test_version_1(tmp_path: Path) -> None:
    group = tmp_path / "cpu" / "docker" / "id"
    group.mkdir(parents=True)
    (group / "cpu.cfs_quota_us").write_text("150000\n")
    (group / "cpu.cfs_period_us").write_text("100000\n")
    membership = "5:memory:/docker/id\n4:cpu,cpuacct:/docker/id\n0::/\n"
    assert cgroup_cpus(membership, tmp_path) == 1.5
    (group / "cpu.cfs_quota_us").write_text("-1\n")
    assert cgroup_cpus(membership, tmp_path) == float("inf")


def test_inside_a_container_the_hosts_path_is_not_mounted(tmp_path: Path) -> None:
    """Version 1 without a cgroup namespace: /proc names the host's path, the mount is the container's own."""
    (tmp_path / "cpu").mkdir()
    (tmp_path / "cpu" / "cpu.cfs_quota_us").write_text("200000\n")
    (tmp_path / "cpu" / "cpu.cfs_period_us").write_text("100000\n")
    assert cgroup_cpus("4:cpu,cpuacct:/docker/host-id\n", tmp_path) == 2
