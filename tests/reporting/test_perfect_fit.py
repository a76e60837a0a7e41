"""Images so easy that the validation loss is 0: advice and report divide by no measurement of 0."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
from command_line import call
from PIL import Image


@pytest.mark.slow
def test_validation_loss_of_0(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    random = np.random.default_rng(0)
    for name, colour in (("red", (200, 20, 20)), ("blue", (20, 20, 200))):
        (tmp_path / "colours" / name).mkdir(parents=True)
        for number in range(60):
            pixels = np.array(colour) + random.integers(-20, 20, (16, 16, 3))
            Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(tmp_path / "colours" / name / f"{number}.png")
    monkeypatch.chdir(tmp_path)
    network = ["--model=compact_resnet", "--image-size=16", "--augment=none", "--precision=float32", "--quantize=none"]
    options = ["--flip=off", "--epochs=8", "--learning-rate=0.3", "--wandb=disabled", "--no-save", "--json"]
    with caplog.at_level(logging.INFO, "trainer"):
        code, lines, error = call("fit", "colours", *network, *options, capsys=capsys)
    assert code == 0, error
    assert "epoch 8/8" in caplog.text
    assert caplog.text.count("validation loss 0.0000, accuracy 100.00%") >= 3
    result = lines[-1]
    assert result["test_accuracy"] == 1
    assert "14 test images" in result["reason"]
    assert "train longer" not in str(result["advice"])
