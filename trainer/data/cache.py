"""Decoded images on disk: made once, reused while the source and the pixel spec stay as they are.

`$TRAINER_CACHE_DIR/KEY/` (default: `trainer` under the user's cache directory) holds

- `images.bin`: uint8 [N,H,W,C], in the source's order, nothing else;
- `labels.npy`: int32 [N];
- `index.json`: class names, pixel spec, the row range of each split, native sizes, rejected files.

An entry is written beside its place under the lock `KEY.lock`, then renamed: a reader sees all of it or none.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import weakref
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import islice, pairwise
from pathlib import Path

import numpy as np
import PIL
from filelock import FileLock, Timeout
from numpy.typing import NDArray
from platformdirs import user_cache_path

from trainer.config import InputError, RunError
from trainer.data.decoding import WORTH_PROCESSES_BYTES, decode_all, first_header
from trainer.data.progress import track
from trainer.data.source import SPLITS, Source
from trainer.serving.engine import available_cpus
from trainer.serving.pixels import PixelSpec

log = logging.getLogger("trainer")

# Raise it when the same bytes decode to other pixels, or the files here change. Pillow's version counts too.
FORMAT = 1
MAX_REJECTED = 0.01  # of all images; more means that the dataset is not what it is taken for
MAX_LOGGED = 50  # rejected files
# Larger pictures are scaled down to this: most networks here are made for small ones.
AUTO_SIZE = (64, 64)
MIN_SIDE = 8


@dataclass(frozen=True)
class Rejected:
    """A file that is no usable image."""

    path: str  # relative to the dataset
    reason: str


class ImageCache:
    """One entry, open for reading; deleting it meanwhile does no harm.

    Raises OSError, ValueError, KeyError or TypeError where the entry is missing, truncated or corrupt.
    """

    def __init__(self, path: Path) -> None:
        index = json.loads((path / "index.json").read_text(encoding="utf-8"))
        self.class_names = tuple(index["labels"])
        self.pixels = PixelSpec.from_dict(index["pixels"])
        self.splits = {name: range(*rows) for name, rows in index["splits"].items()}
        self.sizes = {tuple(map(int, size.split("x"))): count for size, count in index["sizes"].items()}
        self.rejected = tuple(Rejected(**entry) for entry in index["rejected"])
        self.unlabelled: int = index["unlabelled"]  # examples without a class
        self.fingerprint: str = index["fingerprint"]  # of the pixels, labels, class names and splits
        self.labels: NDArray[np.int32] = np.load(path / "labels.npy", allow_pickle=False)
        self._shape = (self.pixels.height, self.pixels.width, self.pixels.channels)
        self._row_bytes = int(np.prod(self._shape))
        rows = sum(map(len, self.splits.values()))
        # Read with pread, not mapped: mapped pages would count as this process's memory.
        self._file = os.open(path / "images.bin", os.O_RDONLY)
        weakref.finalize(self, os.close, self._file)
        if (self.labels.shape, os.fstat(self._file).st_size) != ((rows,), rows * self._row_bytes):
            raise ValueError(f"{path} does not hold the {rows} images that its index names")

    def __len__(self) -> int:
        return len(self.labels)

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
            count = os.preadv(self._file, [buffer], offset)
            if count == 0:
                raise RunError("the decoded images were truncated while they were read; run it again")
            buffer, offset = buffer[count:], offset + count


def cache_dir() -> Path:
    """Where decoded images are kept."""
    return Path(os.environ.get("TRAINER_CACHE_DIR") or user_cache_path("trainer")).expanduser()


def open_or_build(
    source: Source,
    *,
    image_size: tuple[int, int] | None = None,
    normalize: str = "none",
    pixels: PixelSpec | None = None,
    progress: bool | None = None,
) -> ImageCache:
    """The decoded images of `source`, from the cache where it has them.

    `image_size` None: the native size where all images share one of 8 to 64 pixels a side, else 64×64. One
    channel where every file is gray by its mode (a colour file with gray pixels is colour), else three.
    `normalize` mnist implies 28×28×1. `pixels` fixes all of it. `progress` None: a bar on a
    terminal, else lines in the log.
    Raises InputError where more than 1 % of the files are no usable images, a class has none, or the cache
    directory cannot be written.
    """
    wanted = pixels.to_dict() if pixels else {"image_size": image_size, "normalize": normalize}
    request = {"pixels": wanted, "format": FORMAT, "pillow": PIL.__version__}
    key = hashlib.sha256(json.dumps([source.fingerprint, request]).encode()).hexdigest()[:32]
    folder = cache_dir() / key
    if cache := _reuse(folder):
        return cache
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.with_suffix(".lock")):
            if cache := _reuse(folder):  # another process has made it in the meantime
                return cache
            plan = Plan(pixels, True, True) if pixels else _guess(source, image_size, normalize)
            return _build(folder, source, plan, progress)
    except (PermissionError, NotADirectoryError, FileExistsError) as error:
        raise InputError(
            f"{folder.parent}: decoded images cannot be kept there ({error.strerror}); "
            "set TRAINER_CACHE_DIR to a folder that can be written"
        ) from error


def prune() -> tuple[int, int]:
    """Delete every entry that no process is writing → (entries, bytes) deleted."""
    count = size_bytes = 0
    for lock in cache_dir().glob("*.lock"):
        try:
            with FileLock(lock, timeout=0):
                for folder in (lock.with_suffix(""), lock.with_suffix(".tmp")):
                    if folder.exists():
                        count += folder.suffix == ""
                        size_bytes += sum(file.stat().st_size for file in folder.iterdir())
                        shutil.rmtree(folder)
        except Timeout:
            log.info("%s is being written and stays", lock.with_suffix(""))
    return count, size_bytes


def _reuse(folder: Path) -> ImageCache | None:
    if not folder.exists():
        return None
    try:
        cache = ImageCache(folder)
    except (OSError, ValueError, KeyError, TypeError) as error:
        log.warning("%s is damaged and is made again: %s", folder, error)
        return None
    log.info("reusing %d decoded images from %s", len(cache), folder)
    return cache


@dataclass(frozen=True)
class Plan:
    """How to decode, and what of it is certain before every header was seen."""

    pixels: PixelSpec
    size_fixed: bool
    channels_fixed: bool

    def corrected(self, sizes: Iterable[tuple[int, int, int]]) -> Plan:
        """The plan after images of these native (height, width, channels) were seen: itself where it holds."""
        pixels = self.pixels
        if not self.channels_fixed and any(channels == 3 for _, _, channels in sizes):
            pixels = replace(pixels, channels=3)
        if not self.size_fixed and any(size[:2] != (pixels.height, pixels.width) for size in sizes):
            return Plan(replace(pixels, height=AUTO_SIZE[0], width=AUTO_SIZE[1]), True, pixels.channels == 3)
        return replace(self, pixels=pixels, channels_fixed=self.channels_fixed or pixels.channels == 3)


def _guess(source: Source, image_size: tuple[int, int] | None, normalize: str) -> Plan:
    """The plan after the first image: mostly all others are like it, and nothing is read twice."""
    if normalize == "mnist":
        if image_size not in (None, (28, 28)):
            raise InputError("--image-size: normalize mnist makes images of 28x28; leave it out, or --normalize none")
        return Plan(PixelSpec(28, 28, 1, normalize="mnist"), True, True)
    first = first_header(source.examples())
    channels = first.channels if first else 3
    if image_size:
        return Plan(PixelSpec(*image_size, channels), True, channels == 3)
    native = (first.height, first.width) if first else AUTO_SIZE
    fits = all(MIN_SIDE <= side <= largest for side, largest in zip(native, AUTO_SIZE, strict=True))
    return Plan(PixelSpec(*(native if fits else AUTO_SIZE), channels), not fits, channels == 3)


def _build(folder: Path, source: Source, plan: Plan, progress: bool | None) -> ImageCache:
    partial = folder.with_suffix(".tmp")
    shutil.rmtree(partial, ignore_errors=True)  # of a writer that was killed
    partial.mkdir()
    try:
        while (better := _write(partial, source, plan, progress)) is not None:
            log.info("the images differ in size or colour: decoding them again, to %s", _shape(better.pixels))
            plan = better
        shutil.rmtree(folder, ignore_errors=True)
        partial.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return ImageCache(folder)


def _write(folder: Path, source: Source, plan: Plan, progress: bool | None) -> Plan | None:
    """Decode all of `source` into `folder`; a better plan as soon as an image shows that this one is wrong."""
    labels: list[int] = []
    splits: Counter[str] = Counter()
    sizes: Counter[tuple[int, int, int]] = Counter()
    rejected: list[Rejected] = []
    digest = hashlib.sha256()
    total_bytes = sum(example.size_bytes for example in islice(source.examples(), 10_000))
    processes = available_cpus() if total_bytes > WORTH_PROCESSES_BYTES else 1
    labelled = (example for example in source.examples() if example.label >= 0)
    with (folder / "images.bin").open("wb") as file:
        chunks = decode_all(labelled, plan.pixels, processes)
        for chunk, decoded in track(chunks, lambda done: len(done[0]), total=len(source), bar=progress):
            sizes += decoded.sizes
            if (better := plan.corrected(sizes)).pixels != plan.pixels:
                chunks.close()
                return better
            file.write(decoded.images.data)
            digest.update(decoded.images.data)
            for position, example in enumerate(chunk):
                if position in decoded.rejected:
                    rejected.append(Rejected(example.name, decoded.rejected[position]))
                else:
                    labels.append(example.label)
                    splits[example.split] += 1
    unlabelled = len(source) - len(labels) - len(rejected)
    _judge(source, rejected, np.bincount(labels, minlength=len(source.labels)), len(source) - unlabelled)
    table = np.array(labels, np.int32)
    np.save(folder / "labels.npy", table, allow_pickle=False)
    starts = np.cumsum([0, *(splits[name] for name in SPLITS)]).tolist()
    rows = {name: [starts[i], starts[i + 1]] for i, name in enumerate(SPLITS)}
    digest.update(table.tobytes() + json.dumps([source.labels, rows, plan.pixels.to_dict()]).encode())
    index = {
        "labels": source.labels,
        "pixels": plan.pixels.to_dict(),
        "splits": rows,
        "sizes": {"x".join(map(str, size)): count for size, count in sizes.items()},
        "rejected": [{"path": entry.path, "reason": entry.reason} for entry in rejected],
        "unlabelled": unlabelled,
        "fingerprint": digest.hexdigest()[:32],
    }
    (folder / "index.json").write_text(json.dumps(index, ensure_ascii=False), encoding="utf-8")
    log.info("decoded %d images to %s", len(labels), _shape(plan.pixels))
    return None


def _judge(source: Source, rejected: list[Rejected], counts: NDArray[np.int64], total: int) -> None:
    """Name every rejected file; raise InputError where they are too many, or a class is left without images."""
    for entry in rejected[:MAX_LOGGED]:
        log.warning("skipped %s: %s", entry.path, entry.reason)
    if len(rejected) > MAX_LOGGED:
        log.warning("skipped %d more", len(rejected) - MAX_LOGGED)
    if len(rejected) > MAX_REJECTED * total:
        first = "; ".join(f"{entry.path} ({entry.reason})" for entry in rejected[:3])
        raise InputError(
            f"--dataset {source.spec}: {len(rejected)} of {total} images cannot be read, at most 1 % are skipped: "
            f"{first}{' …' if len(rejected) > 3 else ''}"
        )
    for label, count in zip(source.labels, counts.tolist(), strict=True):
        if not count:
            raise InputError(f"--dataset {source.spec}: the class {label!r} has no image that can be read")


def _shape(pixels: PixelSpec) -> str:
    return f"{pixels.height}x{pixels.width}x{pixels.channels}"
