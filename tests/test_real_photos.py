"""Fits on real colour images: CIFAR-10 and photos of clothes. Minutes long."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
from command_line import call, write_digit

from trainer import artifact
from trainer.artifact import store
from trainer.artifact.engine import OOD_SCORE, load_engine
from trainer.artifact.prediction import MAX_OOD_SCORE
from trainer.images.decode import decode

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("in_tmp_path")]

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.mark.timeout(1500)
@pytest.mark.skipif(not (DATA / "cifar10_folder").is_dir(), reason="the CIFAR-10 folder is not beside the checkout")
def test_a_real_colour_folder(capsys: pytest.CaptureFixture[str]) -> None:
    spec = f"folder:{DATA / 'cifar10_folder'}"
    command = ["fit", "--dataset", spec, "--model=compact_resnet", "--epochs=8", "--wandb=disabled", "--json"]
    command += ["--batch-size=32", "--learning-rate=2e-3"]
    code, (fitted,), _ = call(*command, capsys=capsys)
    assert code == 0
    assert fitted["test_accuracy"] >= 0.40


@pytest.mark.skipif(not (DATA / "clothing").is_dir(), reason="the photos of clothes are not beside the checkout")
def test_few_real_photos_with_the_defaults(
    capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    """Accuracy far above that of a network from scratch on 500 photos of ten classes, within the time limit."""
    caplog.set_level(logging.INFO, "trainer")  # shows where the time went
    command = ["fit", "--dataset", str(DATA / "clothing"), "--limit=500", "--time-limit=120s", "--wandb=disabled"]
    code, (fitted,), errors = call(*command, "--json", capsys=capsys)
    assert code == 0, errors
    assert fitted["test_accuracy"] >= 0.72
    photos = sorted((DATA / "clothing" / "test" / "shoes").iterdir())
    code, answers, _ = call("predict", fitted["tag"], *map(str, photos), "--json", capsys=capsys)
    assert code == 0
    assert [answer["label"] for answer in answers].count("shoes") >= 0.8 * len(photos)
    assert [answer["known"] for answer in answers].count(True) >= 0.6 * len(photos)
    digits = []
    for index in range(8):
        write_digit(Path(f"{index}.png"), index)
        digits.append(f"{index}.png")
    code, answers, _ = call("predict", fitted["tag"], *digits, "--json", capsys=capsys)
    assert [answer["known"] for answer in answers].count(False) >= 7
    # Both engines give the same out-of-distribution scores; those of static int8 differ, and refuse the same images.
    loaded = artifact.load(store.find(fitted["tag"]).path)
    images = np.stack([decode(Path(file).read_bytes(), loaded.pixels) for file in [*map(str, photos[:8]), *digits]])
    litert, tensorflow = (load_engine(loaded, name).predict(images)[OOD_SCORE] for name in ("litert", "tensorflow"))
    assert ((litert >= MAX_OOD_SCORE) == (tensorflow >= MAX_OOD_SCORE)).sum() >= 15
    np.testing.assert_allclose(litert, tensorflow, atol=0.15 if loaded.quantization == "static-int8" else 0.02)
