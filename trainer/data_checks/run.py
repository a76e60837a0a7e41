"""Everything that may be wrong with a data set: `examine`, top to bottom."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from trainer.data import Dataset, Split
from trainer.data.progress import track
from trainer.data.sources.base import Source
from trainer.data_checks import embeddings
from trainer.data_checks.confusable_classes import AlikeClasses, find_alike_classes
from trainer.data_checks.duplicates import find_copies, find_duplicates, sure_twins
from trainer.data_checks.image_quality import (
    SMALLEST_BLURRED,
    Poor,
    find_blurred,
    find_empty,
    find_odd_sizes,
    sharpness,
)
from trainer.data_checks.images import Pictures
from trainer.data_checks.label_issues import can_judge, find_wrong_labels
from trainer.data_checks.out_of_fold import out_of_fold
from trainer.data_checks.registration import FINE_SIDE, shrunk
from trainer.images.decode import EncodedImage
from trainer.machine import start_tensorflow

log = logging.getLogger("trainer")

BATCH = 64
NO_POSITIONS = np.empty(0, np.int64)
NO_PAIRS = np.empty((0, 2), np.int64)
LEAST_OF_A_CLASS = 5  # pictures on average: of fewer, nothing is learned that could contradict a label


class WrongLabel(NamedTuple):
    """A picture, by its position, whose label is likely wrong."""

    position: int
    suggested: int  # the class that it looks like
    probability: float  # of that class, 0..1


@dataclass(frozen=True, eq=False)
class Findings:
    """What was found in N pictures. Those that are `examined` were looked at whole; the others by their hashes."""

    pictures: Pictures
    examined: NDArray[np.int64]  # positions
    judged: bool  # whether labels could be judged: classes can be told apart, and there are pictures enough
    wrong_labels: list[WrongLabel]  # the likeliest first
    ranking: NDArray[np.int64]  # the positions of `examined`, the least likely label first; empty unless `judged`
    duplicates: list[NDArray[np.int64]]  # groups of sorted positions
    poor: list[Poor]
    alike: list[AlikeClasses]

    @property
    def any(self) -> bool:
        """Whether there are pictures to show."""
        return bool(self.wrong_labels or self.duplicates or self.poor)


def examine(dataset: Dataset, source: Source, check_interrupted: Callable[[], None] = lambda: None) -> Findings:
    """Look at every picture of `dataset`, which comes from `source`. Raises what `check_interrupted` raises.

    The features of the network take a minute for some thousands of photos, and are then in the cache; the rest seconds.
    """
    pictures = Pictures.of(dataset)
    parts = embeddings.choose(dataset)
    examined = np.flatnonzero(np.isin(pictures.all.indices, np.concatenate([part.indices for part in parts])))
    by_network = embeddings.has_network_features(dataset)
    if by_network:
        start_tensorflow()
    features = embeddings.features_of(dataset, parts, check_interrupted)
    look = _look(Split(pictures.all.cache, pictures.all.indices[examined]), check_interrupted)
    copies = examined[find_copies(features, look.fine, check_interrupted)] if by_network else NO_PAIRS
    duplicates = find_duplicates(pictures.twins if by_network else sure_twins(pictures), copies)
    judged = judge_labels(features, pictures, examined, duplicates)
    empty = find_empty(pictures.looks)
    known = {one.position for one in empty}
    blurred_ones = find_blurred(look.sharpness) if min(pictures.all.shape[:2]) >= SMALLEST_BLURRED else NO_POSITIONS
    blurred = [Poor(one, "blurred") for one in examined[blurred_ones].tolist() if one not in known]
    return Findings(
        pictures=pictures,
        examined=examined,
        judged=judged is not None,
        wrong_labels=[one for one in judged.wrong_labels if one.position not in known] if judged else [],
        ranking=judged.ranking if judged else np.empty(0, np.int64),
        duplicates=duplicates,
        poor=[*empty, *blurred, *_odd_sizes(pictures, examined, source)],
        alike=judged.alike if judged else [],
    )


@dataclass(frozen=True, eq=False)
class JudgedLabels:
    """What the out-of-fold answers tell."""

    wrong_labels: list[WrongLabel]
    ranking: NDArray[np.int64]
    alike: list[AlikeClasses]


def judge_labels(
    features: NDArray[np.float32],
    pictures: Pictures,
    examined: NDArray[np.int64],
    duplicates: list[NDArray[np.int64]],
) -> JudgedLabels | None:
    """Of the pictures `examined` [n] with `features` [n,F]; None where nothing can be said.

    A picture and its `duplicates` are left out together.
    """
    labels, classes = pictures.labels[examined], len(pictures.class_names)
    if len(np.unique(labels)) < 2 or len(labels) < LEAST_OF_A_CLASS * classes:
        return None
    group = np.arange(len(pictures))
    for members in duplicates:
        group[members] = members[0]
    probabilities = out_of_fold(features, labels, group[examined], classes)
    alike = find_alike_classes(probabilities, labels)
    if not can_judge(probabilities, labels):
        return JudgedLabels([], np.empty(0, np.int64), alike) if alike else None
    found = find_wrong_labels(probabilities, labels)
    return JudgedLabels(
        wrong_labels=[
            WrongLabel(int(examined[one]), int(found.suggested[one]), float(found.probabilities[one]))
            for one in found.named
        ],
        ranking=examined[found.order],
        alike=alike,
    )


class _Look(NamedTuple):
    fine: NDArray[np.float32]  # [n,FINE_SIDE,FINE_SIDE]
    sharpness: NDArray[np.float32]  # [n]


def _look(split: Split, check_interrupted: Callable[[], None]) -> _Look:
    """One pass over the pixels."""
    fine, sharp = [], []
    for images in track(split.batches(BATCH), len, total=len(split), what="looking at images", bar=None):
        check_interrupted()
        gray = images.sum(3, dtype=np.uint16).astype(np.float32) / images.shape[3]
        fine.append(shrunk(gray, FINE_SIDE))
        sharp.append(sharpness(gray))
    return _Look(np.concatenate(fine), np.concatenate(sharp))


def _odd_sizes(pictures: Pictures, examined: NDArray[np.int64], source: Source) -> list[Poor]:
    """By the headers of the files, which are read only where they differ."""
    cache = pictures.all.cache
    if len({size[:2] for size in cache.sizes}) == 1:
        return []
    place = {pictures.names[position]: position for position in examined.tolist()}
    sizes, positions = [], []
    for example in source.examples():
        if example.name in place:
            data = example.data if isinstance(example.data, bytes) else _read(example.data)
            info = EncodedImage(data).info
            sizes.append((info.height, info.width))
            positions.append(place[example.name])
    found = find_odd_sizes(np.array(sizes, np.int64), min(cache.pixels.height, cache.pixels.width))
    return [Poor(positions[one.position], one.kind) for one in found]


def _read(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()
