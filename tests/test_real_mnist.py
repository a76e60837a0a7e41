"""Fit, evaluate and serve real MNIST. Minutes long."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from server import Server, form, serving

from trainer.artifact import store
from trainer.cli import run
from trainer.data import load

TFDS = Path(__file__).resolve().parents[2] / "shared" / "data" / "tfds"
BATCH = 250

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1500),
    pytest.mark.skipif(not TFDS.is_dir(), reason="the real MNIST is not beside the checkout"),
]


@dataclass
class Fitted:
    home: Path
    artifact: Path
    test_accuracy: float
    images: NDArray[np.uint8]  # the test images, [10000,28,28,1]
    labels: NDArray[np.int32]


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fitted]:
    """A fit of one epoch without augmentation, otherwise with the defaults."""
    home = tmp_path_factory.mktemp("mnist")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TFDS_DATA_DIR", str(TFDS))
        patch.setenv("BENTOML_HOME", str(home))
        patch.setenv("TRAINER_CACHE_DIR", str(home / "cache"))
        command = ["fit", "--dataset=tfds:mnist", "--epochs=1", "--augment=none", "--wandb=disabled"]
        assert run([*command, "--run-dir", str(home / "run")]) == 0
        test = load("tfds:mnist").test
        images = test.read(np.arange(len(test)))
        artifact = store.find("mnist").path
        accuracy = json.loads((artifact / "spec.json").read_text())["metrics"]["test_accuracy"]
        yield Fitted(home, artifact, accuracy, images, test.labels)


@pytest.fixture(scope="module")
def server(fitted: Fitted, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(fitted.artifact, tmp_path_factory.mktemp("served")) as running:
        yield running


def accuracy_over_http(server: Server, images: list[NDArray[np.uint8]], labels: NDArray[np.int32]) -> float:
    def predict(start: int) -> list[int]:
        parts = [("images", png(image)) for image in images[start : start + BATCH]]
        reply = server.ask("POST", "/predict_batch", *form(*parts))
        return [prediction["index"] for prediction in reply.value["predictions"]]

    with ThreadPoolExecutor(4) as pool:
        found = [index for batch in pool.map(predict, range(0, len(images), BATCH)) for index in batch]
    return float(np.mean(np.array(found) == labels))


def png(image: NDArray[np.uint8]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    return buffer.getvalue()


def draw_dark_on_light(image: NDArray[np.uint8], random: np.random.Generator) -> NDArray[np.uint8]:
    """The digit [28,28] as a person may draw it: dark, anywhere on a light canvas of 200×200."""
    side = int(random.integers(90, 180))
    digit = np.asarray(Image.fromarray(image).resize((side, side), Image.Resampling.BICUBIC), np.int32)
    canvas = np.full((200, 200), int(random.integers(220, 256)), np.int32)
    top, left = random.integers(0, 200 - side, 2)
    paper = canvas[top : top + side, left : left + side]
    canvas[top : top + side, left : left + side] = paper - paper * digit // 300
    return canvas.astype(np.uint8)


def test_one_epoch_learns_mnist(fitted: Fitted) -> None:
    assert fitted.test_accuracy >= 0.987


def test_both_engines_agree(
    fitted: Fitted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for variable, value in (
        ("TFDS_DATA_DIR", TFDS),
        ("BENTOML_HOME", fitted.home),
        ("TRAINER_CACHE_DIR", fitted.home / "cache"),
    ):
        monkeypatch.setenv(variable, str(value))
    monkeypatch.chdir(tmp_path)
    accuracies = {}
    for engine in ("litert", "tensorflow"):
        assert run(["evaluate", "mnist", "--dataset=tfds:mnist", f"--engine={engine}", "--json"]) == 0
        accuracies[engine] = json.loads(capsys.readouterr().out)["test_accuracy"]
    assert accuracies["litert"] == fitted.test_accuracy
    assert accuracies["tensorflow"] == pytest.approx(accuracies["litert"], abs=0.001)


def test_http_is_as_accurate_to_the_image(fitted: Fitted, server: Server) -> None:
    images = list(fitted.images[:, :, :, 0])
    assert accuracy_over_http(server, images, fitted.labels) == pytest.approx(fitted.test_accuracy, abs=1e-9)


def test_digits_drawn_dark_on_light_are_at_most_one_point_worse(fitted: Fitted, server: Server) -> None:
    random = np.random.default_rng(0)
    images = [draw_dark_on_light(image, random) for image in fitted.images[:, :, :, 0]]
    assert accuracy_over_http(server, images, fitted.labels) >= fitted.test_accuracy - 0.01
