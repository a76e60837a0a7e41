"""Data manifest: the content hash, split and class of every image that a model was fitted on.

It lies in the artifact as `data_identity.npz`. With it a model can be measured on images that it has never seen, and
two models on images that neither has seen. An image is identified by the bytes of its file: one that was saved again
counts as another image.
"""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trainer.data.dataset import Dataset
from trainer.data.sources.base import SPLITS
from trainer.data.splits import TRAIN
from trainer.errors import ArtifactError

FILE = "data_identity.npz"
# Split of an image outside the manifest; prediction for an image for which none was recorded; label of an image of an
# earlier version only.
UNKNOWN = -1


@dataclass(frozen=True, eq=False)
class DataManifest:
    """N images, in the order of SPLITS."""

    content_hashes: NDArray[np.uint64]  # [N]: see `trainer.data.splits`
    splits: NDArray[np.int8]  # [N], an index into SPLITS
    labels: NDArray[np.int32]  # [N], an index into `class_names`; UNKNOWN for an image of an earlier version only
    predictions: NDArray[np.int32]  # [N]: the model's class for a held-out image (in older ones: test), else UNKNOWN
    class_names: tuple[str, ...]

    @classmethod
    def of(
        cls, dataset: Dataset, predictions: Sequence[NDArray[np.int64]] = (), earlier: DataManifest | None = None
    ) -> DataManifest:
        """Manifest of a model fitted on `dataset`; `predictions` are its classes for validation and for test images.

        `earlier`: of the version that it started from, whose training images it has learned from, too.
        """
        parts = (dataset.train, dataset.val, dataset.test)
        splits = np.repeat(np.arange(len(SPLITS), dtype=np.int8), [len(part) for part in parts])
        recorded = np.full(len(splits), UNKNOWN, np.int32)
        if predictions:
            recorded[splits != TRAIN] = np.concatenate(predictions)
        contents = np.concatenate([part.content_hashes for part in parts])
        more = np.setdiff1d(earlier.trained, contents) if earlier else contents[:0]
        return cls(
            content_hashes=np.append(contents, more),
            splits=np.append(splits, np.full(len(more), TRAIN, np.int8)),
            labels=np.append(np.concatenate([part.labels for part in parts]), np.full(len(more), UNKNOWN, np.int32)),
            predictions=np.append(recorded, np.full(len(more), UNKNOWN, np.int32)),
            class_names=dataset.class_names,
        )

    def save(self, folder: Path) -> None:
        """Write FILE into `folder`."""
        np.savez_compressed(
            folder / FILE,
            contents=self.content_hashes,
            splits=self.splits,
            labels=self.labels,
            answers=self.predictions,
            class_names=np.array(self.class_names),
        )

    @property
    def trained(self) -> NDArray[np.uint64]:
        """Content hashes of the images that the model learned from."""
        return self.content_hashes[self.splits == TRAIN]

    def count(self, split: int) -> int:
        """Number of images in a split."""
        return int((self.splits == split).sum())

    def splits_of(self, content_hashes: NDArray[np.uint64]) -> NDArray[np.int8]:
        """Split of each image, int8 [n]; UNKNOWN outside the manifest. An image in several splits has the first."""
        known, splits = self._first_splits
        rows = np.minimum(np.searchsorted(known, content_hashes), len(known) - 1)
        return np.where(known[rows] == content_hashes, splits[rows], UNKNOWN).astype(np.int8)

    @cached_property
    def held_out_rows(self) -> NDArray[np.int64]:
        """Rows of the images that the model did not learn from and that have a prediction."""
        return np.flatnonzero((self.splits_of(self.content_hashes) != TRAIN) & (self.predictions != UNKNOWN))

    @cached_property
    def _first_splits(self) -> tuple[NDArray[np.uint64], NDArray[np.int8]]:
        """Unique content hashes, sorted, and the first split of each."""
        order = np.lexsort((self.splits, self.content_hashes))
        known, first = np.unique(self.content_hashes[order], return_index=True)
        return known, self.splits[order][first]


def read_manifest(folder: Path) -> DataManifest | None:
    """Manifest of the artifact in `folder`; None without one, as in older artifacts and in container images.

    Raises ArtifactError for a damaged file.
    """
    file = folder / FILE
    try:
        with file.open("rb") as stream, np.load(stream, allow_pickle=False) as arrays:
            return DataManifest(
                content_hashes=arrays["contents"],
                splits=arrays["splits"],
                labels=arrays["labels"],
                predictions=arrays["answers"],
                class_names=tuple(arrays["class_names"].tolist()),
            )
    except FileNotFoundError:
        return None
    except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise ArtifactError(f"{file}: cannot be read: {error}") from error
