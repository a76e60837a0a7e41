from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from trainer.artifact.engine import PROBABILITIES, Engine, LiteRTEngine, check_engine, load_engine
from trainer.artifact.spec import load
from trainer.errors import ArtifactError


@pytest.fixture(scope="module")
def images() -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (37, 28, 28, 1), np.uint8)


@pytest.fixture(scope="module")
def litert(tiny_artifact: Path) -> Engine:
    return load_engine(load(tiny_artifact))


def test_probabilities(litert: Engine, images: NDArray[np.uint8]) -> None:
    probabilities = litert.predict(images)[PROBABILITIES]
    assert probabilities.shape == (37, 10)
    assert probabilities.dtype == np.float32
    np.testing.assert_allclose(probabilities.sum(1), 1, atol=1e-5)
    assert len(set(probabilities.argmax(1).tolist())) > 1


def test_any_order_of_batch_sizes_gives_the_same_outputs(litert: Engine, images: NDArray[np.uint8]) -> None:
    whole = litert.predict(images)[PROBABILITIES]
    for size in (1, 8, 2, 37, 1, 8):
        parts = [litert.predict(images[start : start + size])[PROBABILITIES] for start in range(0, 37, size)]
        np.testing.assert_allclose(np.concatenate(parts), whole, atol=1e-6)


def test_outputs_are_not_overwritten_by_the_next_call(litert: Engine, images: NDArray[np.uint8]) -> None:
    first = litert.predict(images[:1])[PROBABILITIES]
    kept = first.copy()
    litert.predict(images[1:2])[PROBABILITIES]
    np.testing.assert_array_equal(first, kept)


def test_calls_from_several_threads_do_not_mix(litert: Engine, images: NDArray[np.uint8]) -> None:
    expected = litert.predict(images)[PROBABILITIES]
    wrong: list[int] = []

    def predict(size: int) -> None:
        for start in range(0, 36, size):
            got = litert.predict(images[start : start + size])[PROBABILITIES]
            if not np.allclose(got, expected[start : start + size], atol=1e-6):
                wrong.append(start)

    threads = [threading.Thread(target=predict, args=(size,)) for size in (1, 2, 3, 4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_both_engines_agree(tiny_artifact: Path, litert: Engine, images: NDArray[np.uint8]) -> None:
    tensorflow = load_engine(load(tiny_artifact), "tensorflow")
    expected = tensorflow.predict(images)[PROBABILITIES]
    assert expected.shape == (37, 10)
    assert expected.dtype == np.float32
    np.testing.assert_allclose(litert.predict(images)[PROBABILITIES], expected, atol=0.05)
    np.testing.assert_array_equal(litert.predict(images)[PROBABILITIES].argmax(1), expected.argmax(1))


def test_wrong_input_is_refused(litert: Engine) -> None:
    with pytest.raises((ValueError, RuntimeError), match="dimension"):
        litert.predict(np.zeros((2, 20, 28, 1), np.uint8))
    with pytest.raises(ValueError, match="type"):
        litert.predict(np.zeros((1, 28, 28, 1), np.float32))


def test_unknown_engine_and_missing_network(tiny_artifact: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="litert, tensorflow"):
        load_engine(load(tiny_artifact), "onnx")
    (tmp_path / "model.tflite").write_bytes(b"no network")
    with pytest.raises(ValueError, match="model"):
        LiteRTEngine(tmp_path / "model.tflite")


def test_tensorflow_is_refused_where_it_cannot_run(
    tiny_artifact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without = tmp_path / "without"
    shutil.copytree(tiny_artifact, without, ignore=shutil.ignore_patterns("saved_model"))
    with pytest.raises(ArtifactError, match="saved_model: is missing"):
        check_engine(load(without), "tensorflow")
    check_engine(load(without), "litert")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ArtifactError, match="tensorflow, which is not installed"):
        load_engine(load(tiny_artifact), "tensorflow")


def test_litert_is_quiet_and_imports_no_tensorflow(tiny_artifact: Path) -> None:
    code = (
        "import sys, numpy as np\n"
        "from pathlib import Path\n"
        "from trainer.artifact.spec import load\n"
        "from trainer.artifact.engine import load_engine\n"
        "engine = load_engine(load(Path(sys.argv[1])))\n"
        "engine.predict(np.zeros((1, 28, 28, 1), np.uint8))\n"
        "print(sorted({name.split('.')[0] for name in sys.modules} & {'tensorflow', 'keras', 'bentoml', 'typer'}))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tiny_artifact)], capture_output=True, text=True, timeout=60, check=True
    )
    assert (done.stdout, done.stderr) == ("[]\n", "")
