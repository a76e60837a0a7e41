"""Runs all checks of a data set: `run_checks`, top to bottom."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from trainer.data import Dataset, Split
from trainer.data.batches import predict_batches
from trainer.data.sources.base import Source
from trainer.data_checks import embeddings
from trainer.data_checks.confusable_classes import ConfusableClasses
from trainer.data_checks.duplicates import (
    NO_PAIRS,
    confirm_near_duplicates,
    find_copies,
    find_duplicates,
    group_of_each,
)
from trainer.data_checks.image_quality import (
    KINDS,
    MIN_BLURRED_SIDE,
    Kind,
    LowQuality,
    find_blank_or_dark,
    find_blurred,
    find_odd_sizes,
    sharpness,
)
from trainer.data_checks.images import CheckedImages
from trainer.data_checks.labels import LabelIssue, check_labels
from trainer.data_checks.outliers import find_outliers
from trainer.data_checks.registration import FINE_SIDE, downscale
from trainer.images.decode import EncodedImage
from trainer.machine import start_tensorflow


@dataclass(frozen=True, eq=False)
class Findings:
    """Issues of N images. Those of the `sample` are checked in full; the others only by their hashes."""

    images: CheckedImages
    sample: NDArray[np.int64]  # positions
    labels_checked: bool  # whether the images are enough, and the classes distinct enough, to check labels
    label_issues: list[LabelIssue]  # the most likely first
    duplicates: list[NDArray[np.int64]]  # groups of sorted positions
    low_quality: list[LowQuality]
    kinds_checked: list[Kind]  # of low quality: tiny images have no sharpness, and are not compared by the network
    confusable: list[ConfusableClasses]

    @property
    def has_images(self) -> bool:
        """Whether there are images to show."""
        return bool(self.label_issues or self.duplicates or self.low_quality)


def run_checks(dataset: Dataset, source: Source) -> Findings:
    """Check every image of `dataset`, which comes from `source`.

    Features of the network take a minute for some thousands of photos, and are cached; the rest takes seconds.
    """
    images = CheckedImages.of(dataset)
    parts = embeddings.draw_sample(dataset)
    sample = np.flatnonzero(np.isin(images.combined.indices, np.concatenate([part.indices for part in parts])))
    uses_network = embeddings.has_network_features(dataset)
    if uses_network:
        start_tensorflow()
    features = embeddings.extract_features(dataset, parts)
    pixels = _measure_pixels(Split(images.combined.cache, images.combined.indices[sample]))
    copies = sample[find_copies(features, pixels.gray)] if uses_network else NO_PAIRS
    near_duplicates = images.near_duplicates if uses_network else confirm_near_duplicates(images)
    duplicates = find_duplicates(near_duplicates, copies)
    labels = check_labels(features, images, sample, duplicates)
    blank_or_dark = find_blank_or_dark(images.perceptual_hashes)
    dull = {image.position for image in blank_or_dark}
    label_issues = [issue for issue in labels.issues if issue.position not in dull]
    has_detail = min(images.combined.shape[:2]) >= MIN_BLURRED_SIDE
    blurred = sample[find_blurred(pixels.sharpness)].tolist() if has_detail else []
    low_quality = [
        *blank_or_dark,
        *(LowQuality(position, "blurred") for position in blurred if position not in dull),
        *_odd_sizes(images, sample, source),
    ]
    if uses_network:
        groups = group_of_each(duplicates, len(images))[sample]
        outliers = sample[find_outliers(features, images.labels[sample], groups)].tolist()
        reported = {image.position for image in low_quality} | {issue.position for issue in label_issues}
        low_quality += [LowQuality(position, "outlier") for position in outliers if position not in reported]
    return Findings(
        images=images,
        sample=sample,
        labels_checked=labels.reliable or bool(labels.confusable),
        label_issues=label_issues,
        duplicates=duplicates,
        low_quality=low_quality,
        kinds_checked=[kind for kind in KINDS if {"blurred": has_detail, "outlier": uses_network}.get(kind, True)],
        confusable=labels.confusable,
    )


class _PixelMeasures(NamedTuple):
    gray: NDArray[np.float32]  # [n,FINE_SIDE,FINE_SIDE]
    sharpness: NDArray[np.float32]  # [n]


def _measure_pixels(split: Split) -> _PixelMeasures:
    """Measure everything that needs the pixels, in one pass."""

    def measure(images: NDArray[np.uint8]) -> dict[str, NDArray[np.float32]]:
        gray = images.sum(3, dtype=np.uint16).astype(np.float32) / images.shape[3]
        return {"gray": downscale(gray, FINE_SIDE), "sharpness": sharpness(gray)}

    return _PixelMeasures(**predict_batches(measure, split, "checking images"))


def _odd_sizes(images: CheckedImages, sample: NDArray[np.int64], source: Source) -> list[LowQuality]:
    """Tiny and oddly shaped images; the headers of the files are read only if their sizes differ."""
    cache = images.combined.cache
    if len({size[:2] for size in cache.sizes}) == 1:
        return []
    position_of = {images.names[position]: position for position in sample.tolist()}
    sizes, positions = [], []
    for example in source.examples():
        if example.name in position_of:
            data = example.data if isinstance(example.data, bytes) else _read(example.data)
            info = EncodedImage(data).info
            sizes.append((info.height, info.width))
            positions.append(position_of[example.name])
    found = find_odd_sizes(np.array(sizes, np.int64), min(cache.pixels.height, cache.pixels.width))
    return [LowQuality(positions[image.position], image.kind) for image in found]


def _read(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()
