"""Coverage of the learning curve's prediction: from half of the images, the accuracy gain of twice as many.

    python benchmarks/learning_curve.py FOLDER [FOLDER ...] [--images 600] [--draws 20]

Each draw trains on `--images` images of a folder, and on twice as many for the true gain; VAL images are for
validation, and all others for test. Prints one table: how often the true gain lies in the predicted range.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Iterator

import numpy as np
from hardware import hardware

from trainer.data import Dataset, load
from trainer.features.curve import measure_curve
from trainer.features.extract import Features
from trainer.features.linear_probe import Labelled, fit_linear_probe, fit_with_c
from trainer.models import build
from trainer.models.efficientnet_lite import EFFICIENTNET_LITE0

VAL = 340


def all_features(dataset: Dataset) -> Labelled:
    """Features and labels of every image of the data set, in any split."""
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
    """For each draw: the predicted range of the gain, the true gain, seconds."""
    features, labels = images
    classes = int(labels.max()) + 1
    for draw in range(draws):
        order = np.random.default_rng(draw).permutation(len(labels))
        half, twice = order[:count], order[: 2 * count]
        val, test = order[2 * count : 2 * count + VAL], order[2 * count + VAL :]
        part = {name: (features[rows], labels[rows]) for name, rows in (("half", half), ("val", val), ("twice", twice))}
        probe = fit_linear_probe(part["half"], part["val"], classes)
        start = time.perf_counter()
        curve = measure_curve(probe, part["half"], part["val"])
        seconds = time.perf_counter() - start
        assert curve
        larger = fit_with_c(probe.c, part["twice"], classes)
        before, after = (
            float((fitted.probabilities(features[test]).argmax(1) == labels[test]).mean()) for fitted in (probe, larger)
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
        "| data | images | draws | ranges predicted | true gain, points | predicted range (medians) | true gain in it "
        "| below | above | seconds |\n|---|---|---|---|---|---|---|---|---|---|",
        flush=True,
    )
    for folder in options.folders:
        dataset = load(f"folder:{folder}", input_preference=lambda _: EFFICIENTNET_LITE0.input_preference)
        results = list(predictions(all_features(dataset), options.images, options.draws))
        ranges = np.array([(*span, gain) for span, gain, _ in results if span is not None])
        low, high, gain = 100 * ranges.T
        row = (
            os.path.basename(folder),
            f"{options.images:,} to {2 * options.images:,}",
            str(options.draws),
            str(len(ranges)),
            f"{np.median(gain):.1f} ({gain.min():.1f} to {gain.max():.1f})",
            f"{np.median(low):.1f} to {np.median(high):.1f}",
            str(((low <= gain) & (gain <= high)).sum()),
            str((gain < low).sum()),
            str((gain > high).sum()),
            f"{np.median([seconds for *_, seconds in results]):.1f}",
        )
        print(f"| {' | '.join(row)} |", flush=True)


if __name__ == "__main__":
    main()
