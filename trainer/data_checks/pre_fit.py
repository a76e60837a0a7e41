"""What the doctor says in short before a training: only what costs next to nothing.

Duplicates across splits and classes are told where the data is loaded (`trainer.data.dataset`).
"""

from __future__ import annotations

import logging
from collections import Counter

import numpy as np
from numpy.typing import NDArray

from trainer.data import Dataset, Split
from trainer.data_checks.duplicates import find_duplicates
from trainer.data_checks.embeddings import MOST
from trainer.data_checks.image_quality import KINDS, find_empty
from trainer.data_checks.images import Pictures
from trainer.data_checks.run import NO_PAIRS, judge_labels

log = logging.getLogger("trainer")

WORTH_WARNING = 0.02  # of the images: a few wrong labels are in every collection
# What judging labels takes on two slow cores.
SECONDS, SECONDS_PER_IMAGE = 1.5, 0.5e-3
AFFORDED = 0.03  # of the time that is left


def can_afford(dataset: Dataset, left_s: float) -> bool:
    """Whether judging labels takes hardly any of the time that a training has left."""
    images = min(MOST, len(dataset.train) + len(dataset.val))
    return SECONDS + SECONDS_PER_IMAGE * images <= AFFORDED * left_s


def log_empty(dataset: Dataset) -> None:
    """Warn of blank and dark images; none is read for it."""
    pictures = Pictures.of(dataset)
    found = find_empty(pictures.looks)
    for kind, count in Counter(one.kind for one in found).items():
        first = next(pictures.names[one.position] for one in found if one.kind == kind)
        log.warning("%d of %d images are %s, such as %s", count, len(pictures), KINDS[kind], first)


def count_wrong_labels(
    dataset: Dataset, train: NDArray[np.float32], val: NDArray[np.float32]
) -> tuple[int, int] | None:
    """How many of how many training and validation images likely have a wrong label; None where nobody can tell.

    `train` and `val`, float32 [n,F], are their features. Logged, too.
    """
    pictures = Pictures(
        all=Split(dataset.train.cache, np.concatenate([dataset.train.indices, dataset.val.indices])),
        splits=np.repeat(np.arange(2, dtype=np.int8), [len(train), len(val)]),
        class_names=dataset.class_names,
    )
    asked = np.sort(np.random.default_rng(0).permutation(len(pictures))[:MOST])
    copies = find_duplicates(pictures.twins, NO_PAIRS)
    judged = judge_labels(np.concatenate([train, val])[asked], pictures, asked, copies)
    if judged is None or not len(judged.ranking):
        return None
    count = len(judged.wrong_labels)
    if count:
        worst = judged.wrong_labels[0]
        log.log(
            logging.WARNING if count >= WORTH_WARNING * len(asked) else logging.INFO,
            "%d of %d labels may be wrong: %s (%s) looks like %s; `trainer data inspect` with --page shows them",
            *(count, len(asked), pictures.names[worst.position]),
            *(dataset.class_names[pictures.labels[worst.position]], dataset.class_names[worst.suggested]),
        )
    return count, len(asked)
