"""Dataset: decoded images with class names, divided into train, validation and test."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Set
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trainer.data.cache.decoding import Size
from trainer.data.cache.images import ImageCache, open_or_build
from trainer.data.cache.writer import Rejected
from trainer.data.pixel_request import Request
from trainer.data.sources.base import SPLITS, Source
from trainer.data.sources.spec import open_source
from trainer.data.splits import divide
from trainer.errors import InputError
from trainer.images.pixels import PixelSpec, PixelWish

log = logging.getLogger("trainer")

WORTH_WARNING = 0.01  # of the images of a split, or of all


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

    @property
    def contents(self) -> NDArray[np.uint64]:
        """Hashes of the files, uint64 [N]."""
        return self.cache.contents[self.indices]

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
    class_names: tuple[str, ...]
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

    `image_size` (height, width) None: chosen from the data and the network's `wish` for images of their native sizes.
    `normalize` auto: mnist for `tfds:mnist`, none for everything else. `pixels` fixes all of how an image is decoded,
    for a model that exists. A tenth of train becomes validation where there is none, and another tenth test, both as
    the images' content has it: see `trainer.data.splits`. `limit` caps train only, by a draw from `seed`. `progress`
    None: a bar on a terminal, else lines in the log. Raises InputError where the data cannot be used.
    """
    source = open_source(spec, data_dir)
    if normalize == "auto":
        normalize = source.default_normalize
    cache = open_or_build(source, Request(image_size, normalize, pixels, wish), progress)
    rows = {name: np.arange(part.start, part.stop) for name, part in cache.splits.items()}
    missing = tuple(name for name in ("val", "test") if not len(rows[name]))
    if missing:
        train = rows["train"]
        division = divide(cache.contents[train], cache.twins[train], cache.labels[train], missing)
        for name in ("train", *missing):
            rows[name] = train[division == SPLITS.index(name)]
    if not all(map(len, rows.values())):
        raise InputError(
            f"--dataset: {source.spec} has {len(cache)} images, too few to set some aside for validation and test; "
            "add images, or folders val and test beside train"
        )
    _name_twins(cache, rows)
    if limit is not None:
        rows["train"] = _draw(rows["train"], cache.labels, limit, np.random.default_rng(seed))
    return Dataset(
        name=source.name,
        spec=source.spec,
        class_names=cache.class_names,
        pixels=cache.pixels,
        train=Split(cache, rows["train"]),
        val=Split(cache, rows["val"]),
        test=Split(cache, rows["test"]),
        fingerprint=cache.fingerprint,
        rejected=cache.rejected,
        ignored=source.ignored + cache.unlabelled,
        digits=all(len(label) == 1 for label in cache.class_names),
    )


def load_undivided(source: Source, pixels: PixelSpec) -> Split:
    """Every image of `source`, in whichever split, for a model that exists. Raises what `load` does."""
    cache = open_or_build(source, Request(pixels=pixels))
    if not len(cache):
        raise InputError(f"--dataset: {source.spec} has no images with a class")
    return Split(cache, np.arange(len(cache)))


def _name_twins(cache: ImageCache, rows: dict[str, NDArray[np.int64]]) -> None:
    """Name what a division that is not ours has on both sides, and what is in two classes."""
    for first, second in (("train", "val"), ("train", "test"), ("val", "test")):
        shared = np.isin(cache.twins[rows[second]], cache.twins[rows[first]])
        if shared.any():
            known = rows[second][np.argmax(shared)]
            twin = rows[first][np.argmax(cache.twins[rows[first]] == cache.twins[known])]
            _say(
                shared,
                "%d of %d %s images are in %s, too, or look the same as one there (such as %s and %s): by so many, "
                "figures on %s may be too good",
                *(second, first, cache.names[known], cache.names[twin], second),
            )
    pairs = np.unique(cache.twins * len(cache.class_names) + cache.labels)
    groups, classes = np.unique(pairs // len(cache.class_names), return_counts=True)
    torn = np.isin(cache.twins, groups[classes > 1])
    if torn.any():
        one = int(np.argmax(torn))
        other = int(np.argmax((cache.twins == cache.twins[one]) & (cache.labels != cache.labels[one])))
        _say(
            torn,
            "%d of %d images are in another class, too, or look the same as one there (such as %s and %s): keep the "
            "one in the right class",
            *(cache.names[one], cache.names[other]),
        )


def _say(found: NDArray[np.bool_], message: str, *rest: object) -> None:
    """Log how many of how many are found, and the `rest`; a handful is worth a word, and more a warning."""
    count = int(found.sum())
    level = logging.WARNING if count >= WORTH_WARNING * len(found) else logging.INFO
    log.log(level, message, count, len(found), *rest)


def _draw(
    rows: NDArray[np.int64], labels: NDArray[np.int32], count: int, generator: np.random.Generator
) -> NDArray[np.int64]:
    """At most `count` of `rows` at random, sorted; of every class its share, and one at least where `count` allows."""
    shuffled = generator.permutation(rows)
    classes = labels[shuffled]
    sizes = np.bincount(classes)
    rank = np.empty(len(rows), np.int64)  # of each row within its class
    rank[np.argsort(classes, kind="stable")] = np.arange(len(rows)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    # Taking the lowest quantiles takes the same part of every class.
    quantile = np.where(rank == 0, 0, (rank + 0.5) / sizes[classes])
    return np.sort(shuffled[np.argsort(quantile, kind="stable")[:count]])
