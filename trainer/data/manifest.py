"""What a model was fitted on: the content hash of each picture, its split and its class.

It lies in the artifact as `data_identity.npz`, so that the model can be measured on what it has never seen, wherever
that lies, and two models on what neither has. A picture is known by the bytes of its file: one that was saved again is
another.
"""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trainer.data.dataset import Dataset
from trainer.data.sources.base import SPLITS
from trainer.data.splits import TEST
from trainer.errors import ArtifactError

FILE = "data_identity.npz"
UNKNOWN = -1  # the split of a picture that the model was not fitted on; the answer to one that it was not asked for


@dataclass(frozen=True, eq=False)
class DataIdentity:
    """Of N pictures, in the order of SPLITS."""

    contents: NDArray[np.uint64]  # [N]: see `trainer.data.splits`
    splits: NDArray[np.int8]  # [N], an index into SPLITS
    labels: NDArray[np.int32]  # [N], an index into `class_names`
    answers: NDArray[np.int32]  # [N]: the class that the model gives a test picture
    class_names: tuple[str, ...]

    @classmethod
    def of(cls, dataset: Dataset, test_answers: NDArray[np.int64] | None = None) -> DataIdentity:
        """That of what is fitted on `dataset`; `test_answers` [n] are the classes given to its test pictures."""
        parts = (dataset.train, dataset.val, dataset.test)
        splits = np.repeat(np.arange(len(SPLITS), dtype=np.int8), [len(part) for part in parts])
        answers = np.full(len(splits), UNKNOWN, np.int32)
        if test_answers is not None:
            answers[splits == TEST] = test_answers
        return cls(
            contents=np.concatenate([part.contents for part in parts]),
            splits=splits,
            labels=np.concatenate([part.labels for part in parts]),
            answers=answers,
            class_names=dataset.class_names,
        )

    def save(self, folder: Path) -> None:
        """Write FILE into `folder`."""
        np.savez_compressed(
            folder / FILE,
            contents=self.contents,
            splits=self.splits,
            labels=self.labels,
            answers=self.answers,
            class_names=np.array(self.class_names),
        )

    def count(self, split: int) -> int:
        """The number of pictures in a split."""
        return int((self.splits == split).sum())

    def splits_of(self, contents: NDArray[np.uint64]) -> NDArray[np.int8]:
        """In which split each of these pictures was, int8 [n]; UNKNOWN: in none. One in several: the first of them."""
        known, splits = self._first_splits
        places = np.minimum(np.searchsorted(known, contents), len(known) - 1)
        return np.where(known[places] == contents, splits[places], UNKNOWN).astype(np.int8)

    @cached_property
    def tested(self) -> NDArray[np.int64]:
        """The rows of the pictures that were in test alone, and whose answers are known."""
        return np.flatnonzero((self.splits_of(self.contents) == TEST) & (self.answers != UNKNOWN))

    @cached_property
    def _first_splits(self) -> tuple[NDArray[np.uint64], NDArray[np.int8]]:
        """Each content once, sorted, and its first split."""
        order = np.lexsort((self.splits, self.contents))
        known, first = np.unique(self.contents[order], return_index=True)
        return known, self.splits[order][first]


def read(folder: Path) -> DataIdentity | None:
    """That of the artifact in `folder`; None where it has none: older ones do not, and an image leaves it out.

    Raises ArtifactError for one that is damaged.
    """
    file = folder / FILE
    try:
        with file.open("rb") as stream, np.load(stream, allow_pickle=False) as arrays:
            names = arrays["class_names"].tolist()
            numbers = {name: arrays[name] for name in ("contents", "splits", "labels", "answers")}
    except FileNotFoundError:
        return None
    except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise ArtifactError(f"{file}: cannot be read: {error}") from error
    return DataIdentity(**numbers, class_names=tuple(names))
