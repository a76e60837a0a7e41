"""CheckedImages: the images of all splits in one sequence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from trainer.data import Dataset, Split


@dataclass(frozen=True, eq=False)
class CheckedImages:
    """N images of K classes: train, then val, then test. Findings refer to an image by its position here."""

    combined: Split  # of all splits
    splits: NDArray[np.int8]  # [N], an index into SPLITS
    class_names: tuple[str, ...]  # [K]

    @classmethod
    def of(cls, dataset: Dataset) -> CheckedImages:
        """All images of a data set."""
        return cls._join((dataset.train, dataset.val, dataset.test), dataset.class_names)

    @classmethod
    def of_train_and_val(cls, dataset: Dataset) -> CheckedImages:
        """All images of a data set but those of test."""
        return cls._join((dataset.train, dataset.val), dataset.class_names)

    @classmethod
    def _join(cls, parts: Sequence[Split], class_names: tuple[str, ...]) -> CheckedImages:
        return cls(
            combined=Split(parts[0].cache, np.concatenate([part.indices for part in parts])),
            splits=np.repeat(np.arange(len(parts), dtype=np.int8), [len(part) for part in parts]),
            class_names=class_names,
        )

    def __len__(self) -> int:
        return len(self.combined)

    @property
    def labels(self) -> NDArray[np.int32]:
        """int32 [N]."""
        return self.combined.labels

    @property
    def near_duplicates(self) -> NDArray[np.int64]:
        """The near-duplicate group of each image, [N]; see `trainer.data.perceptual_hash`."""
        return self.combined.cache.near_duplicates[self.combined.indices]

    @property
    def perceptual_hashes(self) -> NDArray[np.uint64]:
        """uint64 [N,5]; see `trainer.data.perceptual_hash`."""
        return self.combined.cache.perceptual_hashes[self.combined.indices]

    @cached_property
    def names(self) -> list[str]:
        """The name of each image: its path, or its place in the data set."""
        return [self.combined.cache.names[index] for index in self.combined.indices.tolist()]
