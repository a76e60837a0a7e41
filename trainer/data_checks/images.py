"""All pictures of a data set in one row: train, then val, then test."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from trainer.data import Dataset, Split


@dataclass(frozen=True, eq=False)
class Pictures:
    """N pictures of K classes; every finding names them by their position here."""

    all: Split
    splits: NDArray[np.int8]  # [N], an index into SPLITS
    class_names: tuple[str, ...]  # [K]

    @classmethod
    def of(cls, dataset: Dataset) -> Pictures:
        parts = (dataset.train, dataset.val, dataset.test)
        return cls(
            all=Split(dataset.train.cache, np.concatenate([part.indices for part in parts])),
            splits=np.repeat(np.arange(len(parts), dtype=np.int8), [len(part) for part in parts]),
            class_names=dataset.class_names,
        )

    def __len__(self) -> int:
        return len(self.all)

    @property
    def labels(self) -> NDArray[np.int32]:
        """int32 [N]."""
        return self.all.labels

    @property
    def twins(self) -> NDArray[np.int64]:
        """The group of each picture, [N], that has the same bytes or the same look: see `trainer.data.splits`."""
        return self.all.cache.twins[self.all.indices]

    @property
    def looks(self) -> NDArray[np.uint64]:
        """uint64 [N,5]: see `trainer.data.splits`."""
        return self.all.cache.looks[self.all.indices]

    @cached_property
    def names(self) -> list[str]:
        """Of each picture: how a person finds it."""
        return [self.all.cache.names[index] for index in self.all.indices.tolist()]
