"""Decoded images on disk: made once, reused while the source and the pixel spec stay as they are.

`$TRAINER_CACHE_DIR/KEY-28x28x1-mnist/` (default: `trainer` under the user's cache directory) holds

- `images.bin`: uint8 [N,H,W,C], in the source's order, nothing else;
- `labels.npy`: int32 [N]; `contents.npy`, `looks.npy`, `twins.npy`: see `trainer.data.splits`;
- `names.json`: how a person finds each image, N strings;
- `index.json`: class names, pixel spec, the row range of each split, native sizes, rejected files.

KEY names the state of the source. One entry tells the native sizes, and so what every other would be.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import weakref
from collections.abc import Set
from functools import cached_property, partial
from itertools import pairwise
from pathlib import Path

import numpy as np
import PIL
from numpy.typing import NDArray

from trainer.data.cache.decoding import Size, first_size
from trainer.data.cache.entries import PARTIAL, cache_dir, locked, place_of, write_entry
from trainer.data.cache.writer import OtherSizes, Rejected, write_images
from trainer.data.pixel_request import PixelRequest
from trainer.data.sources.base import Source
from trainer.errors import InputError, RunError
from trainer.images.pixels import PixelSpec

log = logging.getLogger("trainer")

# Raise it when the same bytes decode to other pixels, or the files here change. Pillow's version counts too.
FORMAT = 3


class ImageCache:
    """One entry, open for reading; deleting it meanwhile does no harm.

    Raises OSError, EOFError, ValueError, KeyError or TypeError where the entry is missing, truncated or corrupt.
    """

    def __init__(self, path: Path) -> None:
        index = json.loads((path / "index.json").read_text(encoding="utf-8"))
        self.class_names = tuple(index["labels"])
        self.pixels = PixelSpec.from_dict(index["pixels"])
        self.splits = {name: range(*rows) for name, rows in index["splits"].items()}
        self.sizes: dict[Size, int] = {(h, w, c): count for h, w, c, count in index["sizes"]}  # native → images
        self.rejected = tuple(Rejected(**entry) for entry in index["rejected"])
        self.unlabelled: int = index["unlabelled"]  # examples without a class
        self.fingerprint: str = index["fingerprint"]  # of the pixels, files, labels, class names and splits
        self.labels: NDArray[np.int32] = np.load(path / "labels.npy", allow_pickle=False)
        self.content_hashes: NDArray[np.uint64] = np.load(
            path / "contents.npy", allow_pickle=False
        )  # hash of each file
        self.perceptual_hashes: NDArray[np.uint64] = np.load(path / "looks.npy", allow_pickle=False)
        self.near_duplicates: NDArray[np.int64] = np.load(
            path / "twins.npy", allow_pickle=False
        )  # the group of each image
        self._shape = (self.pixels.height, self.pixels.width, self.pixels.channels)
        self._row_bytes = int(np.prod(self._shape))
        rows = sum(map(len, self.splits.values()))
        self.file = path / "images.bin"
        self.size_bytes = rows * self._row_bytes  # of all images
        # Read with pread, not mapped: mapped pages would count as this process's memory.
        self._descriptor = os.open(self.file, os.O_RDONLY)
        weakref.finalize(self, os.close, self._descriptor)
        self._names_descriptor = os.open(path / "names.json", os.O_RDONLY)
        weakref.finalize(self, os.close, self._names_descriptor)
        self._names_bytes: int = index["names_bytes"]
        if os.fstat(self._names_descriptor).st_size != self._names_bytes:
            raise ValueError(f"{path}/names.json is not as it was written")
        arrays = {
            len(array) for array in (self.labels, self.content_hashes, self.perceptual_hashes, self.near_duplicates)
        }
        if (arrays, os.fstat(self._descriptor).st_size) != ({rows}, self.size_bytes):
            raise ValueError(f"{path} does not hold the {rows} images that its index names")

    def __len__(self) -> int:
        return len(self.labels)

    @cached_property
    def names(self) -> list[str]:
        """Of each image: its path within a folder, or its key in a TFDS data set."""
        names: list[str] = json.loads(os.pread(self._names_descriptor, self._names_bytes, 0))
        return names

    def read(self, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        """The images of `rows` [n] → uint8 [n,H,W,C]; neighbouring rows are read at once."""
        images = np.empty((len(rows), *self._shape), np.uint8)
        if not len(rows):
            return images
        buffer = images.reshape(-1).data
        starts = np.concatenate([[0], np.flatnonzero(np.diff(rows) != 1) + 1, [len(rows)]]).tolist()
        for start, stop in pairwise(starts):
            self._fill(buffer[start * self._row_bytes : stop * self._row_bytes], int(rows[start]) * self._row_bytes)
        return images

    def _fill(self, buffer: memoryview, offset: int) -> None:
        while buffer:
            count = os.preadv(self._descriptor, [buffer], offset)
            if count == 0:
                raise RunError("the decoded images were truncated while they were read; run it again")
            buffer, offset = buffer[count:], offset + count


def open_or_build(source: Source, request: PixelRequest, progress: bool | None = None) -> ImageCache:
    """The decoded images of `source`, from the cache where it has them.

    `progress` None: a bar on a terminal, else lines in the log. Raises InputError where more than 1 % of the
    files are no usable images, a class is left without any, or the cache directory cannot be written.
    """
    request.resolve(set())  # says at once what cannot be
    place = place_of_source(source)
    if cache := _find(place, request):
        return cache
    with locked(place):
        # Another process may have made it in the meantime.
        return _find(place, request) or _build(place, source, request, progress)


def place_of_source(source: Source) -> Path:
    """Where the entries of its decoded images stand; their names begin with this one."""
    return place_of([source.fingerprint, FORMAT, PIL.__version__])


def _find(place: Path, request: PixelRequest) -> ImageCache | None:
    """The entry for `request` among those of one source, whose native sizes say which it is."""
    for entry in sorted(place.parent.glob(f"{place.name}-*")):
        if entry.suffix == PARTIAL or not (sibling := _open(entry)):
            continue
        folder = _folder(place, request.resolve(sibling.sizes.keys()))
        cache = sibling if folder == entry else _open(folder)
        if cache:
            log.info("reusing %d decoded images from %s", len(cache), folder)
        return cache
    return None


def _open(folder: Path) -> ImageCache | None:
    if not folder.exists():
        return None
    try:
        return ImageCache(folder)
    except (OSError, EOFError, ValueError, KeyError, TypeError) as error:
        log.warning("%s is damaged and is made again: %s", folder, error)
        return None


def _folder(place: Path, pixels: PixelSpec) -> Path:
    normalize = "" if pixels.normalize == "none" else f"-{pixels.normalize}"
    return place.with_name(f"{place.name}-{pixels.shape_name}{normalize}")


def _build(place: Path, source: Source, request: PixelRequest, progress: bool | None) -> ImageCache:
    # Mostly all images are like the first, and nothing is decoded twice.
    sizes: Set[Size] = first_size(source.examples())
    while True:
        pixels = request.resolve(sizes)
        folder = _folder(place, pixels)
        _refuse_too_large(source, pixels)
        try:
            write = partial(
                write_images, source=source, pixels=pixels, request=request, expected=sizes, progress=progress
            )
            write_entry(folder, write)
            return ImageCache(folder)
        except OtherSizes as other:
            sizes = other.sizes
            log.info("the images differ in size or colour: decoding them again")


def _refuse_too_large(source: Source, pixels: PixelSpec) -> None:
    needed = len(source) * pixels.height * pixels.width * pixels.channels
    free = shutil.disk_usage(cache_dir()).free
    if needed > free:
        raise InputError(
            f"--dataset: {source.spec}: {len(source):,} images of {pixels.shape_name} take {needed / 1e9:.1f} GB, and "
            f"{cache_dir()} has {free / 1e9:.1f} GB left; make room (`trainer cache prune`), set TRAINER_CACHE_DIR to "
            "a larger disk, or choose a smaller --image-size"
        )
