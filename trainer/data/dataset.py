"""Dataset: decoded images with class names, divided into train, validation and test."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Set
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trainer.config import InputError
from trainer.data.decoding import Size
from trainer.data.image_cache import ImageCache, open_or_build
from trainer.data.image_writer import Rejected
from trainer.data.pixel_request import Request
from trainer.data.spec import open_source
from trainer.images.pixels import PixelSpec, PixelWish

HELD_OUT = 0.1  # of the training images, for validation and again for test, where there are none


@dataclass(frozen=True, eq=False)
class Split:
    """Some rows of the decoded images, in a fixed order."""

    cache: ImageCache
    indices: NDArray[np.int64]  # [N], into the cache

    def __len__(self) -> int:
        return len(self.indices)

    @cached_property
    def labels(self) -> NDArray[np.int32]:
        """int32 [N]."""
        return self.cache.labels[self.indices]

    @cached_property
    def counts(self) -> NDArray[np.int64]:
        """Images per class, int64 [K]."""
        return np.bincount(self.labels, minlength=len(self.cache.class_names))

    @property
    def shape(self) -> tuple[int, int, int]:
        """(height, width, channels) of an image."""
        pixels = self.cache.pixels
        return pixels.height, pixels.width, pixels.channels

    def read(self, positions: NDArray[np.int64]) -> NDArray[np.uint8]:
        """The images at `positions` [n] of this split → uint8 [n,H,W,C]."""
        return self.cache.read(self.indices[positions])

    def name(self, position: int) -> str:
        """How a person finds the image at `position` of this split."""
        return self.cache.names[self.indices[position]]

    def batches(self, size: int) -> Iterator[NDArray[np.uint8]]:
        """All images in order, uint8 [n,H,W,C] with n ≤ `size`."""
        for start in range(0, len(self), size):
            yield self.read(np.arange(start, min(start + size, len(self))))


@dataclass(frozen=True, eq=False)
class Dataset:
    """Disjoint splits with class names. `digits`: the classes are characters, which are not mirrored."""

    name: str  # a model's name by default
    spec: str
    labels: tuple[str, ...]
    pixels: PixelSpec
    train: Split
    val: Split
    test: Split
    fingerprint: str  # hex; changes when images, classes or pixels do
    rejected: tuple[Rejected, ...]
    ignored: int
    digits: bool


def load(
    spec: str,
    *,
    image_size: tuple[int, int] | None = None,
    normalize: str = "auto",
    pixels: PixelSpec | None = None,
    wish: Callable[[Set[Size]], PixelWish] = lambda sizes: PixelWish(),
    data_dir: Path | None = None,
    seed: int = 0,
    limit: int | None = None,
    progress: bool | None = None,
) -> Dataset:
    """Decode (or find in the cache) and split the images that `spec` names.

    `image_size` (height, width) None: chosen from the data and the network's `wish` for
    images of their native sizes. `normalize` auto: mnist for
    `tfds:mnist`, none for everything else. `pixels` fixes all of how an image is decoded, for a model that
    exists. A tenth of train becomes validation where there is none, and another tenth test; both stratified,
    from `seed`. `limit` caps train only. `progress` None: a bar on a terminal, else lines in the log.
    Raises InputError where the data cannot be used.
    """
    source = open_source(spec, data_dir)
    if normalize == "auto":
        normalize = source.default_normalize
    cache = open_or_build(source, Request(image_size, normalize, pixels, wish), progress)
    rows = {name: np.arange(part.start, part.stop) for name, part in cache.splits.items()}
    generator = np.random.default_rng(seed)
    train, held_out = rows["train"], {}
    tenth = round(HELD_OUT * len(train))
    for name in ("val", "test"):
        if len(rows[name]):
            held_out[name] = rows[name]
        else:
            count = _share(train, cache.labels, tenth)
            train, held_out[name] = _hold_out(train, cache.labels, count, generator)
    if limit is not None:
        train, _ = _hold_out(train, cache.labels, max(0, len(train) - limit), generator)
    if not (len(train) and len(held_out["val"]) and len(held_out["test"])):
        raise InputError(
            f"--dataset: {source.spec} has {len(cache)} images, too few to set some aside for validation and test; "
            "add images, or folders val and test beside train"
        )
    return Dataset(
        name=source.name,
        spec=source.spec,
        labels=cache.class_names,
        pixels=cache.pixels,
        train=Split(cache, train),
        val=Split(cache, held_out["val"]),
        test=Split(cache, held_out["test"]),
        fingerprint=cache.fingerprint,
        rejected=cache.rejected,
        ignored=source.ignored + cache.unlabelled,
        digits=all(len(label) == 1 for label in cache.class_names),
    )


def _hold_out(
    rows: NDArray[np.int64], labels: NDArray[np.int32], count: int, generator: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Divide `rows` at random into (the rest, `count` of them), both sorted; every class by its share.

    Each class gives at least one where the count allows it, and its last only when no other has more.
    """
    shuffled = generator.permutation(rows)
    classes = labels[shuffled]
    sizes = np.bincount(classes)
    rank = np.empty(len(rows), np.int64)  # of each row within its class
    rank[np.argsort(classes, kind="stable")] = np.arange(len(rows)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    # Taking the lowest quantiles takes the same part of every class.
    quantile = (rank + 0.5) / sizes[classes]
    quantile[rank == 0] = 0
    quantile[rank == sizes[classes] - 1] = 1
    order = np.argsort(quantile, kind="stable")
    return np.sort(shuffled[order[count:]]), np.sort(shuffled[order[:count]])


def _share(rows: NDArray[np.int64], labels: NDArray[np.int32], count: int) -> int:
    """How many of `rows` to set aside: `count`, or one of each class that has another, if that is more."""
    return max(count, int((np.bincount(labels[rows]) > 1).sum()))
