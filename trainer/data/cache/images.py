"""Decoded images on disk: written once, reused while the source and the pixel spec are the same.

`$TRAINER_CACHE_DIR/KEY-28x28x1-mnist/` (default: `trainer` under the user's cache directory) holds

- `images.bin`: uint8 [N,H,W,C], in the source's order, nothing else; enlarged when they are read (`stored_spec`);
- `labels.npy`: int32 [N]; `content_hashes.npy`: see `trainer.data.splits`;
- `perceptual_hashes.npy`, `near_duplicates.npy` (group numbers): see `trainer.data.perceptual_hash`;
- `names.json`: path or key of each image, N strings;
- `index.json`: class names, pixel spec, the row range of each split, native facts, rejected files.

KEY is a hash of the source's state and the versions of the decoders. One entry has the native facts, from which the
pixel spec of any request follows.
"""

from __future__ import annotations

import functools
import hashlib
import json
import logging
import os
import shutil
import weakref
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import PIL
from numpy.typing import NDArray
from PIL import features

from trainer.data.cache.decoding import NativeFacts, Size, first_native
from trainer.data.cache.entries import PARTIAL, cache_dir, draft_of, entry_prefix, keep, locked
from trainer.data.cache.writer import FEW_REJECTED, OtherNative, Rejected, is_too_many, log_rejected, write_images
from trainer.data.pixel_request import PixelRequest, stored_spec
from trainer.data.sources.base import Source
from trainer.errors import InputError, RunError
from trainer.images.enlarge import enlarge
from trainer.images.pixels import PixelSpec

log = logging.getLogger("trainer")

# Raise it when the same bytes decode to other pixels, or the files here change. See `decoder_versions`, too.
FORMAT = 6


def _load(folder: Path, name: str) -> NDArray[Any]:
    array: NDArray[Any] = np.load(folder / f"{name}.npy", allow_pickle=False)
    return array


class ImageCache:
    """An entry that is open for reading, also after it was deleted. Its images are read as those of `request`.

    Raises OSError, EOFError, ValueError, KeyError or TypeError where the entry is missing, truncated or corrupt.
    """

    def __init__(self, path: Path, request: PixelRequest) -> None:
        index = json.loads((path / "index.json").read_text(encoding="utf-8"))
        self.class_names = tuple(index["labels"])
        self.splits = {name: range(*rows) for name, rows in index["splits"].items()}
        self.sizes: dict[Size, int] = {(h, w, c): count for h, w, c, count in index["sizes"]}  # native → images
        self.native = NativeFacts(self.sizes.keys(), index["bits"], index["turned"])
        self.pixels = request.resolve(self.native)
        self.stored = PixelSpec.from_dict(index["pixels"])
        self.rejected = tuple(Rejected(**entry) for entry in index["rejected"])
        self.unlabelled: int = index["unlabelled"]  # examples without a class
        # Of the images (as they are stored, and as they are read), files, labels, class names and splits.
        self.stored_fingerprint: str = index["fingerprint"]
        facts = json.dumps([self.stored_fingerprint, self.pixels.to_dict()])
        self.fingerprint = hashlib.sha256(facts.encode()).hexdigest()[:32]
        self.labels: NDArray[np.int32] = _load(path, "labels")
        self.content_hashes: NDArray[np.uint64] = _load(path, "content_hashes")
        self.perceptual_hashes: NDArray[np.uint64] = _load(path, "perceptual_hashes")
        self.near_duplicates: NDArray[np.int64] = _load(path, "near_duplicates")  # the group of each image
        self._row_bytes = int(np.prod(self.stored.shape))
        rows = sum(map(len, self.splits.values()))
        self.size_bytes = rows * self._row_bytes  # of all images, as they are stored
        # Read with pread, not mapped: mapped pages would count as this process's memory.
        self._path = path / "images.bin"
        self._descriptor = os.open(self._path, os.O_RDONLY)
        weakref.finalize(self, os.close, self._descriptor)
        self._names_descriptor = os.open(path / "names.json", os.O_RDONLY)
        weakref.finalize(self, os.close, self._names_descriptor)
        self._names_bytes: int = index["names_bytes"]
        if os.fstat(self._names_descriptor).st_size != self._names_bytes:
            raise ValueError(f"{path}/names.json is not as it was written")
        arrays = (self.labels, self.content_hashes, self.perceptual_hashes, self.near_duplicates)
        if ({len(array) for array in arrays}, os.fstat(self._descriptor).st_size) != ({rows}, self.size_bytes):
            raise ValueError(f"{path} does not hold the {rows} images that its index names")

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def file(self) -> str:
        """Path of all images as they are stored, for this process; valid also after the entry was deleted."""
        return path if os.path.exists(path := f"/dev/fd/{self._descriptor}") else str(self._path)

    @functools.cached_property
    def names(self) -> list[str]:
        """Path of each image within its folder, or its key in a TFDS data set."""
        names: list[str] = json.loads(os.pread(self._names_descriptor, self._names_bytes, 0))
        return names

    def read(self, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Images of `rows` [n], uint8 [n,H,W,C]; neighbouring rows are read at once."""
        images = np.empty((len(rows), *self.stored.shape), np.uint8)
        buffer = images.reshape(-1).data
        starts = np.concatenate([[0], np.flatnonzero(np.diff(rows) != 1) + 1, [len(rows)]]).tolist()
        for start, stop in pairwise(starts if len(rows) else []):
            self._fill(buffer[start * self._row_bytes : stop * self._row_bytes], int(rows[start]) * self._row_bytes)
        return images if self.stored == self.pixels else enlarge(images, self.pixels)

    def _fill(self, buffer: memoryview, offset: int) -> None:
        while buffer:
            count = os.preadv(self._descriptor, [buffer], offset)
            if count == 0:
                raise RunError("the decoded images were truncated while they were read; run it again")
            buffer, offset = buffer[count:], offset + count


def open_or_build(
    source: Source, request: PixelRequest, progress: bool | None = None, *, any_rejected: bool = False
) -> ImageCache:
    """Decoded images of `source`, from the cache where possible.

    `progress` None: a bar on a terminal, else lines in the log. Raises InputError where a class is left without usable
    images, the cache directory cannot be written, or, unless `any_rejected`, more than 1 % and more than FEW_REJECTED
    of the files are no usable images.
    """
    request.resolve(NativeFacts())  # refuses contradictory options before the work
    prefix = source_prefix(source)
    cache = _find(prefix, request)
    if cache is None:
        with locked(prefix):
            # Another process may have written it in the meantime.
            cache = _find(prefix, request) or _build(prefix, source, request, progress)
    log_rejected(cache.rejected)
    if cache.rejected:
        _check_rejected(source, cache, any_rejected)
    return cache


def _check_rejected(source: Source, cache: ImageCache, any_rejected: bool) -> None:
    """Raise InputError where the rejected files are too many, or a class has no other images in train."""
    rejected, total = cache.rejected, len(source)
    if not len(cache) or (is_too_many(len(rejected), total) and not any_rejected):
        first = "; ".join(f"{file.path} ({file.reason})" for file in rejected[:3])
        raise InputError(
            f"--dataset: {source.spec}: {len(rejected)} of {total} images cannot be used, and at most 1 % or "
            f"{FEW_REJECTED} are skipped: {first}{'; …' if len(rejected) > 3 else ''}"
        )
    present = cache.labels[cache.splits["train"].start : cache.splits["train"].stop]
    missing = set(range(len(cache.class_names))) - set(np.unique(present).tolist())
    if missing:
        paths = {file.path for file in rejected}
        for example in source.examples():
            if example.split == "train" and example.label in missing and example.name in paths:
                raise InputError(
                    f"--dataset: {source.spec}: the class {source.class_names[example.label]!r} has no image that can "
                    "be used"
                )


def source_prefix(source: Source) -> Path:
    """Path with which the paths of a source's entries begin."""
    return entry_prefix([source.state, FORMAT, *decoder_versions()])


@functools.cache
def decoder_versions() -> tuple[str, ...]:
    """Versions of the libraries that affect the decoded pixels."""
    versions = [f"pillow {PIL.__version__}"]
    versions += [f"{codec} {features.version(codec)}" for codec in ("libjpeg_turbo", "webp", "avif")]
    try:
        import pillow_heif
    except ModuleNotFoundError:
        return (*versions, "no HEIC")
    return (*versions, f"pillow-heif {pillow_heif.__version__}", f"libheif {pillow_heif.libheif_version()}")


def _find(prefix: Path, request: PixelRequest) -> ImageCache | None:
    """Entry for `request` among those of one source; the native sizes in any of them say which one it is."""
    for entry in sorted(prefix.parent.glob(f"{prefix.name}-*")):
        if entry.suffix == PARTIAL or not (sibling := _open(entry, request)):
            continue
        folder = _folder(prefix, stored_spec(sibling.pixels, sibling.native))
        cache = sibling if folder == entry else _open(folder, request)
        if cache:
            log.info("reusing %d decoded images from %s", len(cache), folder)
        return cache
    return None


def _open(folder: Path, request: PixelRequest) -> ImageCache | None:
    if not folder.exists():
        return None
    try:
        return ImageCache(folder, request)
    except (OSError, EOFError, ValueError, KeyError, TypeError) as error:
        log.warning("%s is damaged and is written again: %s", folder, error)
        return None


def _folder(prefix: Path, pixels: PixelSpec) -> Path:
    resize = "" if pixels.resize == "stretch" else f"-{pixels.resize}"
    normalize = "" if pixels.normalize == "none" else f"-{pixels.normalize}"
    depth = "" if pixels.bits == 16 else f"-{pixels.bits}bit"
    return prefix.with_name(f"{prefix.name}-{pixels.shape_name}{resize}{normalize}{depth}")


def _build(prefix: Path, source: Source, request: PixelRequest, progress: bool | None) -> ImageCache:
    # A guess: mostly all images are like the first, and nothing is decoded twice.
    native = first_native(source.examples())
    while True:
        pixels = stored_spec(request.resolve(native), native)
        folder = _folder(prefix, pixels)
        _refuse_too_large(source, pixels)
        try:
            with draft_of(folder) as draft:
                if write_images(draft, source, pixels, request, native, progress):
                    keep(draft, folder)
                    cache = ImageCache(folder, request)
                else:
                    cache = ImageCache(draft, request)
                    log.warning("files that cannot be read now may be later: the decoded images are not kept")
            if pixels.bits != 16:
                log.info(
                    "16-bit images with values of %d bits: their range is 0 to %d", pixels.bits, 2**pixels.bits - 1
                )
            return cache
        except OtherNative as other:
            native = other.native
            log.info("the images differ in size, colour, bits or orientation: decoding them again")


def _refuse_too_large(source: Source, pixels: PixelSpec) -> None:
    needed = len(source) * pixels.height * pixels.width * pixels.channels
    free = shutil.disk_usage(cache_dir()).free
    if needed > free:
        raise InputError(
            f"--dataset: {source.spec}: {len(source):,} images of {pixels.shape_name} take {needed / 1e9:.1f} GB, and "
            f"{cache_dir()} has {free / 1e9:.1f} GB left; make room (`trainer cache prune`), set TRAINER_CACHE_DIR to "
            "a larger disk, or choose a smaller --image-size"
        )
