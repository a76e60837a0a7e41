"""How honest the learning curve of `trainer fit` is: it predicts from half of the images what twice as many bring.

    python benchmarks/learning_curve.py FOLDER [FOLDER ...] [--images 600] [--draws 20]

Of all images of a folder, in each draw, so many are trained on, as many again are what doubling brings, VAL are for
validation, and all others tell the truth. Prints one table: how often the true gain lies in the range that was said.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Iterator

import numpy as np
from hardware import hardware
from numpy.typing import NDArray

from trainer.data import Dataset, load
from trainer.features.curve import measure_curve
from trainer.features.extract import Features
from trainer.features.linear_probe import fit_at, fit_head
from trainer.models import build
from trainer.models.efficientnet_lite0 import EFFICIENTNET_LITE0

VAL = 340

Labelled = tuple[NDArray[np.float32], NDArray[np.int32]]


def all_features(dataset: Dataset) -> Labelled:
    """Of every image of the data set, whichever its split."""
    height, width, channels = dataset.train.shape
    model = build(
        EFFICIENTNET_LITE0.name,
        input_shape=(height, width, channels),
        classes=len(dataset.class_names),
        dropout=0,
        kernel_size=3,
    )
    features = Features(EFFICIENTNET_LITE0, model, lambda: None)
    splits = (dataset.train, dataset.val, dataset.test)
    return np.concatenate([features.of(split) for split in splits]), np.concatenate([split.labels for split in splits])


def predictions(images: Labelled, count: int, draws: int) -> Iterator[tuple[tuple[float, float] | None, float, float]]:
    """For each draw: the range that is said, the true gain, seconds."""
    features, labels = images
    classes = int(labels.max()) + 1
    for draw in range(draws):
        order = np.random.default_rng(draw).permutation(len(labels))
        half, twice = order[:count], order[: 2 * count]
        val, others = order[2 * count : 2 * count + VAL], order[2 * count + VAL :]
        part = {name: (features[rows], labels[rows]) for name, rows in (("half", half), ("val", val), ("twice", twice))}
        head = fit_head(part["half"], part["val"], classes)
        start = time.perf_counter()
        curve = measure_curve(head, part["half"], part["val"])
        seconds = time.perf_counter() - start
        assert curve
        larger = fit_at(head.strength, part["twice"], classes)
        before, after = (
            float((one.probabilities(features[others]).argmax(1) == labels[others]).mean()) for one in (head, larger)
        )
        yield curve.doubling, after - before, seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+")
    parser.add_argument("--images", type=int, default=600)
    parser.add_argument("--draws", type=int, default=20)
    options = parser.parse_args()
    print(hardware(), flush=True)
    print(
        "| data | images | draws | a range was said | true gain, points | range said (medians) | true gain in it "
        "| below | above | seconds |\n|---|---|---|---|---|---|---|---|---|---|",
        flush=True,
    )
    for folder in options.folders:
        dataset = load(f"folder:{folder}", wish=lambda _: EFFICIENTNET_LITE0.wish)
        found = list(predictions(all_features(dataset), options.images, options.draws))
        said = np.array([(*span, gain) for span, gain, _ in found if span is not None])
        low, high, gain = 100 * said.T
        row = (
            os.path.basename(folder),
            f"{options.images:,} to {2 * options.images:,}",
            str(options.draws),
            str(len(said)),
            f"{np.median(gain):.1f} ({gain.min():.1f} to {gain.max():.1f})",
            f"{np.median(low):.1f} to {np.median(high):.1f}",
            str(((low <= gain) & (gain <= high)).sum()),
            str((gain < low).sum()),
            str((gain > high).sum()),
            f"{np.median([seconds for *_, seconds in found]):.1f}",
        )
        print(f"| {' | '.join(row)} |", flush=True)


if __name__ == "__main__":
    main()
