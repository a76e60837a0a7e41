"""Programs that `train.py` times, each in a process of its own: `python train_programs.py NAME [ARGUMENT ...]`.

Each prints one JSON object. TensorFlow and `trainer` are imported by the programs that need them.
"""

from __future__ import annotations

import json
import sys
import time
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from trainer.data import Split

Figures = dict[str, Any]


def keras_fit(limit: str, target: str, epochs: str) -> Figures:
    """Keras's own `fit` of the two-branch network on MNIST, until the test accuracy `target` if that is not 0."""
    import keras

    from trainer.data import load
    from trainer.models import build

    def arrays(split: Split) -> tuple[NDArray[np.uint8], NDArray[np.int32]]:
        return split.read(np.arange(len(split))), split.labels

    data = load("tfds:mnist", limit=int(limit))
    images, labels = arrays(data.train)
    model = build("branched_cnn", input_shape=(28, 28, 1), classes=10, dropout=0.4, kernel_size=3)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(1e-3), loss=loss, metrics=["accuracy"])
    seconds, accuracies = [], []
    for _ in range(int(epochs)):
        start = time.perf_counter()
        model.fit(images, labels, batch_size=128, verbose=0)
        seconds.append(time.perf_counter() - start)
        if float(target):
            accuracies.append(model.evaluate(*arrays(data.test), batch_size=256, verbose=0)[1])
            if accuracies[-1] >= float(target):
                break
    return {"seconds": sum(seconds), "images_per_second": len(images) / seconds[-1], "accuracies": accuracies}


def input_pipeline() -> Figures:
    """Images a second of the input pipeline alone on MNIST, for `--augment` none and auto."""
    from trainer.data import augment_for, load, make_for_train

    data = load("tfds:mnist")
    figures = {}
    for choice in ("none", "auto"):
        augment = augment_for(data, choice, "auto", default="light", flips=False)
        batches = make_for_train(data.train, batch_size=128, seed=0, augment=augment)
        for _ in batches.take(20):
            pass
        start = time.perf_counter()
        for _ in batches.take(400):
            pass
        figures[choice] = 400 * 128 / (time.perf_counter() - start)
    return figures


def keras_folder(folder: str) -> Figures:
    """The first pass of Keras over a folder of images."""
    import keras

    start = time.perf_counter()
    batches = keras.utils.image_dataset_from_directory(folder, image_size=(32, 32), batch_size=128, verbose=False)
    images = sum(len(batch) for batch, _ in batches)
    return {"images": images, "seconds": time.perf_counter() - start}


def trainer_folder(folder: str) -> Figures:
    """The first pass of `trainer` over a folder of images."""
    from trainer.data import load

    start = time.perf_counter()
    data = load(f"folder:{folder}", progress=False)
    images = sum(len(split) for split in (data.train, data.val, data.test))
    return {"images": images, "seconds": time.perf_counter() - start}


PROGRAMS = {program.__name__: program for program in (keras_fit, input_pipeline, keras_folder, trainer_folder)}

if __name__ == "__main__":
    print(json.dumps(PROGRAMS[sys.argv[1]](*sys.argv[2:])))
