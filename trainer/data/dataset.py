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
from trainer.data.pixel_request import PixelRequest
from trainer.data.sources.base import SPLITS, Source
from trainer.data.sources.spec import open_source
from trainer.data.splits import divide, is_trained
from trainer.errors import InputError
from trainer.images.pixels import InputPreference, PixelSpec

log = logging.getLogger("trainer")

WARN_SHARE = 0.01  # of the images of a split, or of all: fewer near-duplicates are an info line


@dataclass(frozen=True, eq=False)
class Split:
    """Some rows of the decoded images, in a fixed order."""

    cache: ImageCache
    indices: NDArray[np.int64]  # [N], rows of the cache

    def __len__(self) -> int:
        return len(self.indices)

    @cached_property
    def labels(self) -> NDArray[np.int32]:
        """int32 [N]."""
        return self.cache.labels[self.indices]

    @property
    def content_hashes(self) -> NDArray[np.uint64]:
        """Hashes of the files, uint64 [N]."""
        return self.cache.content_hashes[self.indices]

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
        """Images at `positions` [n] of this split, uint8 [n,H,W,C]."""
        return self.cache.read(self.indices[positions])

    def name(self, position: int) -> str:
        """Path or key by which a person finds the image at `position` of this split."""
        return self.cache.names[self.indices[position]]

    def batches(self, size: int) -> Iterator[NDArray[np.uint8]]:
        """All images in order, uint8 [n,H,W,C] with n ≤ `size`."""
        for start in range(0, len(self), size):
            yield self.read(np.arange(start, min(start + size, len(self))))


@dataclass(frozen=True, eq=False)
class Dataset:
    """Disjoint splits with class names."""

    name: str  # default name of a model
    spec: str
    class_names: tuple[str, ...]
    pixels: PixelSpec
    train: Split
    val: Split
    test: Split
    fingerprint: str  # hex; changes when images, classes or pixels do
    rejected: tuple[Rejected, ...]
    ignored: int
    has_character_classes: bool  # every class name is one character: images are not mirrored
    held_out: tuple[str, ...]  # val, test: splits that the data set lacks and that are made from train


def load(
    data: str | Source,
    *,
    image_size: tuple[int, int] | None = None,
    resize: str = "stretch",
    normalize: str = "auto",
    pixels: PixelSpec | None = None,
    trained: NDArray[np.uint64] | None = None,
    input_preference: Callable[[Set[Size]], InputPreference] = lambda sizes: InputPreference(),
    data_dir: Path | None = None,
    seed: int = 0,
    limit: int | None = None,
    progress: bool | None = None,
    any_rejected: bool = False,
) -> Dataset:
    """Decode (or find in the cache) and split the images of `data`, a source or its spec.

    `image_size` is (height, width); None: chosen from the native sizes and the network's preference for them. `resize`
    is one of `RESIZES`.
    `normalize` auto: mnist for `tfds:mnist`, else none. `pixels` fixes all of the decoding, for an existing model. A
    tenth of train becomes validation where there is none, and another tenth test, by content hash: see
    `trainer.data.splits`. Images with the content hashes `trained` are moved to train. `limit` caps train only, by a
    draw from `seed`. `progress` None: a bar on a terminal, else log lines. `any_rejected`: any number of files may be
    no usable images. Raises InputError where the data cannot be used.
    """
    source = open_source(data, data_dir) if isinstance(data, str) else data
    if normalize == "auto":
        normalize = source.default_normalize
    request = PixelRequest(image_size, resize, normalize, pixels, input_preference)
    cache = open_or_build(source, request, progress, any_rejected=any_rejected)
    rows = {name: np.arange(part.start, part.stop) for name, part in cache.splits.items()}
    missing = tuple(name for name in ("val", "test") if not len(rows[name]))
    if missing:
        train = rows["train"]
        division = divide(cache.content_hashes[train], cache.near_duplicates[train], cache.labels[train], missing)
        for name in ("train", *missing):
            rows[name] = train[division == SPLITS.index(name)]
    if trained is not None:
        _move_to_train(rows, cache, trained, missing)
    if not all(map(len, rows.values())):
        raise InputError(
            f"--dataset: {source.spec} has {len(cache)} images, too few to set some aside for validation and test; "
            "add images, or folders val and test beside train"
        )
    for name in missing:
        log.info(
            "%s has no %s images: %d of its %d train images are taken for it",
            source.spec,
            name,
            len(rows[name]),
            len(train),
        )
    _log_near_duplicates(cache, rows)
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
        has_character_classes=all(len(name) == 1 for name in cache.class_names),
        held_out=missing,
    )


def _move_to_train(
    rows: dict[str, NDArray[np.int64]], cache: ImageCache, trained: NDArray[np.uint64], made: tuple[str, ...]
) -> None:
    """Change `rows` so that no validation or test image is one of `trained`, nor in the splits `made` a near-duplicate.

    Raises InputError where a split of the user's own becomes empty.
    """
    facts = cache.content_hashes, cache.near_duplicates, cache.labels, trained
    for name in ("val", "test"):
        moved = is_trained(*facts, whole_groups=name in made)[rows[name]]
        if not moved.any():
            continue
        if moved.all():
            raise InputError(f"--start-from: the {name} images are all training images of that version; add others")
        log.info(
            "%d of %d %s images are training images of the version before: they stay so",
            *(moved.sum(), len(moved)),
            name,
        )
        rows["train"] = np.sort(np.append(rows["train"], rows[name][moved]))
        rows[name] = rows[name][~moved]


def load_undivided(source: Source, pixels: PixelSpec) -> Split:
    """Every image of `source`, of all splits, for an existing model. Raises the errors of `load`."""
    cache = open_or_build(source, PixelRequest(pixels=pixels))
    if not len(cache):
        raise InputError(f"--dataset: {source.spec} has no images with a class")
    return Split(cache, np.arange(len(cache)))


def _log_near_duplicates(cache: ImageCache, rows: dict[str, NDArray[np.int64]]) -> None:
    """Log near-duplicates across the user's own splits, and across classes."""
    groups = cache.near_duplicates
    for first, second in (("train", "val"), ("train", "test"), ("val", "test")):
        shared = np.isin(groups[rows[second]], groups[rows[first]])
        if shared.any():
            image = rows[second][np.argmax(shared)]
            duplicate = rows[first][np.argmax(groups[rows[first]] == groups[image])]
            _log_count(
                shared,
                "%d of %d %s images are in %s, too, or look the same as one there (such as %s and %s): by so many, "
                "figures on %s may be too good",
                *(second, first, cache.names[image], cache.names[duplicate], second),
            )
    pairs = np.unique(np.stack([groups, cache.labels], axis=1), axis=0)
    in_two_classes = np.isin(groups, pairs[1:, 0][pairs[1:, 0] == pairs[:-1, 0]])
    if in_two_classes.any():
        image = np.argmax(in_two_classes)
        duplicate = np.argmax((groups == groups[image]) & (cache.labels != cache.labels[image]))
        _log_count(
            in_two_classes,
            "%d of %d images look like one of another class (such as %s and %s): keep each in the right class only",
            *(cache.names[image], cache.names[duplicate]),
        )


def _log_count(found: NDArray[np.bool_], message: str, *values: object) -> None:
    """Log the number of images found [N], N, and `values`: a warning from WARN_SHARE on, else an info line."""
    count = int(found.sum())
    level = logging.WARNING if count >= WARN_SHARE * len(found) else logging.INFO
    log.log(level, message, count, len(found), *values)


def _draw(
    rows: NDArray[np.int64], labels: NDArray[np.int32], count: int, generator: np.random.Generator
) -> NDArray[np.int64]:
    """Random stratified draw of at most `count` rows, sorted; at least one of every class where `count` allows it."""
    shuffled = generator.permutation(rows)
    classes = labels[shuffled]
    sizes = np.bincount(classes)
    rank = np.empty(len(rows), np.int64)  # of each row within its class
    rank[np.argsort(classes, kind="stable")] = np.arange(len(rows)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    # The lowest quantiles hold the same share of every class.
    quantile = np.where(rank == 0, 0, (rank + 0.5) / sizes[classes])
    return np.sort(shuffled[np.argsort(quantile, kind="stable")[:count]])
