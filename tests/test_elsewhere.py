"""The program of docs/elsewhere.md, which knows nothing of this package."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from server import PROJECT

from trainer import Model, artifact
from trainer.images.pixels import PixelSpec

ORIENTATION = 0x0112  # EXIF
PAGE = PROJECT / "docs" / "elsewhere.md"


def program() -> str:
    (code,) = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    return str(code)


def classify(folder: Path, image: Path) -> dict[str, Any]:
    # -I: without the folder and the variables that would let it import this project's modules.
    done = subprocess.run(
        [sys.executable, "-I", "-c", program(), str(folder), str(image)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


def test_the_program_is_short_and_stands_alone() -> None:
    assert len(program().splitlines()) <= 30
    assert "trainer" not in program()


@pytest.fixture(scope="module")
def photo_artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An artifact of an untrained network with an out-of-distribution score, 24×40×3, which noise is not foreign to."""
    import keras

    from trainer.export.freeze import convert, freeze, save_frozen
    from trainer.features.ood import fit_ood_score

    keras.utils.set_random_seed(2)
    images = keras.Input((24, 40, 3), dtype="uint8")
    values = keras.layers.Conv2D(16, 5, activation="relu")(keras.layers.Rescaling(1 / 255)(images))
    features = keras.layers.GlobalAveragePooling2D(name="features")(values)
    network = keras.Model(images, keras.layers.Dense(4)(features))
    noise = np.random.default_rng(0).integers(0, 256, (96, 24, 40, 3), np.uint8)
    measured = keras.Model(images, features).predict(noise, verbose=0)
    score = fit_ood_score(measured[:48], measured[48:])
    folder = tmp_path_factory.mktemp("photo") / "export"
    save_frozen(freeze(network, ood_score=score, features="features"), folder / "saved_model")
    (folder / "model.tflite").write_bytes(convert(folder / "saved_model", "float32"))
    artifact.write_spec(
        folder,
        class_names=("a", "b", "c", "d"),
        pixels=PixelSpec(24, 40, 3),
        dataset="folder:photos",
        config={},
        metrics={},
        quantization="float32",
        temperature=1.0,
        threshold=0.2,
        versions={},
        git_revision=None,
    )
    return folder


@pytest.mark.parametrize("name", ["tiny_artifact", "photo_artifact"])
def test_the_program_answers_as_the_model(name: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    folder: Path = request.getfixturevalue(name)
    model = Model("model:1", artifact.load(folder))
    random = np.random.default_rng(1)
    noise = Image.fromarray(random.integers(0, 256, (70, 130, 3), np.uint8))
    upright, lying = Image.Exif(), Image.Exif()
    upright[ORIENTATION], lying[ORIENTATION] = 1, 6
    noise.resize((390, 210)).save(tmp_path / "large.jpg", exif=upright)
    noise.save(tmp_path / "lying.jpg", exif=lying)
    noise.convert("L").save(tmp_path / "gray.png")
    Image.new("RGB", (40, 24)).save(tmp_path / "black.png")
    Image.fromarray(random.integers(0, 256, (24, 40, 3), np.uint8)).save(tmp_path / "small.png")
    answers = [model.predict(file) for file in sorted(tmp_path.iterdir())]
    assert [classify(folder, file) for file in sorted(tmp_path.iterdir())] == [
        {"label": answer.label, "probability": answer.probability, "known": answer.known} for answer in answers
    ]
    if name == "photo_artifact":  # the other one has no probability above its threshold
        assert {answer.known for answer in answers} == {True, False}
