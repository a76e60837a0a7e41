"""Real artifacts, made as `trainer fit` makes them but without training: a small one, and one of the real size."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from trainer import artifact
from trainer.artifact.engine import PROBABILITIES, LiteRTEngine
from trainer.artifact.reference import save_reference
from trainer.artifact.spec import EXPLAIN_FILE
from trainer.data.manifest import DataManifest
from trainer.images.pixels import PixelSpec

CLASS_NAMES = ("0", "1", "2", "3", "4", "5", "6", "7", "8", "drei Punkte … é")
THRESHOLD = 0.5
PIXELS = PixelSpec(28, 28, 1)


def export_tiny_model(folder: Path, pixel_scale: float = 1 / 255, logit_scale: float = 30, seed: int = 1) -> Path:
    """Write an artifact of an untrained network, 28×28×1 → 10 classes, whose outputs differ from image to image."""
    import keras

    keras.utils.set_random_seed(seed)
    layers = keras.layers
    return _export(
        keras.Sequential(
            [
                keras.Input((28, 28, 1), dtype="uint8"),
                layers.Rescaling(pixel_scale),
                layers.Conv2D(4, 5, strides=3, activation="relu"),
                layers.Flatten(),
                layers.Dense(10, kernel_initializer="random_normal"),
                layers.Rescaling(logit_scale),  # at 30, the probabilities are far from uniform
            ]
        ),
        folder,
    )


def export_full_size_model(folder: Path, seed: int = 1) -> Path:
    """The same with the network for MNIST, whose start-up time and speed do not depend on its training."""
    import keras

    from trainer.models import build

    keras.utils.set_random_seed(seed)
    return _export(build("branched_cnn", input_shape=(28, 28, 1), classes=10, dropout=0.0, kernel_size=3), folder)


def export_pooled_model(folder: Path) -> Path:
    """The same with a network that pools its features, and so has an activation engine to explain with."""
    import keras

    from trainer.models import build

    keras.utils.set_random_seed(0)
    return _export(build("compact_resnet", input_shape=(28, 28, 1), classes=10, dropout=0.0, kernel_size=3), folder)


def export_other_classes(folder: Path) -> Path:
    """The same with other classes and another input: 20×24×3 → 2 classes."""
    import keras

    keras.utils.set_random_seed(0)
    layers = keras.layers
    network = keras.Sequential(
        [keras.Input((20, 24, 3), dtype="uint8"), layers.Rescaling(1 / 255), layers.Flatten(), layers.Dense(2)]
    )
    return _export(network, folder, ("cat", "dog"), PixelSpec(20, 24, 3))


def _export(model: Any, folder: Path, class_names: Sequence[str] = CLASS_NAMES, pixels: PixelSpec = PIXELS) -> Path:
    from trainer.export.freeze import convert, freeze, save_activation, save_frozen

    frozen = freeze(model)
    folder.mkdir(parents=True)
    save_frozen(frozen, folder / "saved_model")
    (folder / "model.tflite").write_bytes(convert(folder / "saved_model", "int8"))
    save_activation(model, folder / EXPLAIN_FILE)  # where the network pools
    images = np.random.default_rng(0).integers(0, 256, (4, *pixels.shape), np.uint8)
    save_reference(folder, images, LiteRTEngine(folder / "model.tflite").predict(images)[PROBABILITIES])
    (folder / "report").mkdir()
    (folder / "report" / "report.txt").write_text("a report\n")
    manifest = DataManifest(
        content_hashes=np.arange(3, dtype=np.uint64),
        splits=np.arange(3, dtype=np.int8),
        labels=np.zeros(3, np.int32),
        predictions=np.array([-1, -1, 0], np.int32),
        class_names=CLASS_NAMES,
    )
    manifest.save(folder)
    write_tiny_spec(folder, class_names, pixels)
    return folder


def write_tiny_spec(folder: Path, class_names: Sequence[str] = CLASS_NAMES, pixels: PixelSpec = PIXELS) -> None:
    """Write the spec of the files in `folder`."""
    artifact.write_spec(
        folder,
        class_names=class_names,
        pixels=pixels,
        dataset="builtin:digits",
        config={"seed": 0},
        metrics={"test_accuracy": 0.5, "val_accuracy": 0.25},
        quantization="int8",
        temperature=1.0,
        threshold=THRESHOLD,
        versions={"python": "3.11"},
        git_revision=None,
    )
