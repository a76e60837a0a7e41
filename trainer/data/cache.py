"""Decoded images on disk: made once, reused while the source and the pixel spec stay as they are.

`$TRAINER_CACHE_DIR/KEY-28x28x1-mnist/` (default: `trainer` under the user's cache directory) holds

- `images.bin`: uint8 [N,H,W,C], in the source's order, nothing else;
- `labels.npy`: int32 [N];
- `names.json`: how a person finds each image, N strings;
- `index.json`: class names, pixel spec, the row range of each split, native sizes, rejected files.

KEY names the state of the source. An entry is written beside its place under the lock `KEY.lock`, then renamed:
a reader sees all of it or none. One entry tells the native sizes, and so what every other would be.
"""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import os
import shutil
import weakref
from collections import Counter
from collections.abc import Iterator, Set
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, pairwise
from pathlib import Path

import numpy as np
import PIL
from filelock import FileLock, Timeout
from numpy.typing import NDArray
from platformdirs import user_cache_path

from trainer.config import InputError, RunError
from trainer.data.decoding import WORTH_PROCESSES_BYTES, Size, decode_all, first_size
from trainer.data.progress import track
from trainer.data.source import SPLITS, Example, Source
from trainer.images.pixels import PixelSpec
from trainer.machine import available_cpus

log = logging.getLogger("trainer")

# Raise it when the same bytes decode to other pixels, or the files here change. Pillow's version counts too.
FORMAT = 2
MAX_REJECTED = 0.01  # of all images; more means that the dataset is not what it is taken for
MAX_LOGGED = 50  # rejected files
# Larger pictures are scaled down to this: most networks here are made for small ones.
AUTO_SIZE = (64, 64)
MIN_SIDE = 8
MNIST_SIZE = (28, 28)
PARTIAL = ".tmp"
UNWRITABLE = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST)


@dataclass(frozen=True)
class Rejected:
    """A file that is no usable image."""

    path: str  # relative to the dataset
    reason: str


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
        self.fingerprint: str = index["fingerprint"]  # of the pixels, labels, class names and splits
        self.labels: NDArray[np.int32] = np.load(path / "labels.npy", allow_pickle=False)
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
        if (self.labels.shape, os.fstat(self._descriptor).st_size) != ((rows,), self.size_bytes):
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


def cache_dir() -> Path:
    """Where decoded images are kept."""
    return Path(os.environ.get("TRAINER_CACHE_DIR") or user_cache_path("trainer")).expanduser()


@dataclass(frozen=True)
class Request:
    """What an image is to be decoded to, as far as it is said."""

    image_size: tuple[int, int] | None = None  # (height, width)
    normalize: str = "none"
    pixels: PixelSpec | None = None  # all of it

    def resolve(self, sizes: Set[Size]) -> PixelSpec:
        """The pixels for a source whose images have these native sizes. More sizes can only widen them.

        Where no size is asked for: the native one where all images share one of 8 to 64 pixels a side, else
        64×64. One channel where every file is gray by its mode (a colour file with gray pixels is colour).
        """
        if self.pixels:
            return self.pixels
        if self.normalize == "mnist":
            if self.image_size not in (None, MNIST_SIZE):
                raise InputError(
                    "--image-size: --normalize mnist makes images of 28x28; leave the size out, or --normalize none"
                )
            return PixelSpec(*MNIST_SIZE, channels=1, normalize="mnist")
        channels = 1 if sizes and all(size[2] == 1 for size in sizes) else 3
        if self.image_size:
            return PixelSpec(*self.image_size, channels)
        native = {size[:2] for size in sizes}
        if len(native) == 1:
            height, width = native.pop()
            if MIN_SIDE <= height <= AUTO_SIZE[0] and MIN_SIDE <= width <= AUTO_SIZE[1]:
                return PixelSpec(height, width, channels)
        return PixelSpec(*AUTO_SIZE, channels)


def open_or_build(source: Source, request: Request, progress: bool | None = None) -> ImageCache:
    """The decoded images of `source`, from the cache where it has them.

    `progress` None: a bar on a terminal, else lines in the log. Raises InputError where more than 1 % of the
    files are no usable images, a class is left without any, or the cache directory cannot be written.
    """
    request.resolve(set())  # says at once what cannot be
    state = json.dumps([source.fingerprint, FORMAT, PIL.__version__])
    place = cache_dir() / hashlib.sha256(state.encode()).hexdigest()[:32]
    if cache := _find(place, request):
        return cache
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        with _locked(place):
            # Another process may have made it in the meantime.
            return _find(place, request) or _build(place, source, request, progress)
    except OSError as error:
        if error.errno not in UNWRITABLE:
            raise
        raise InputError(
            f"{place.parent}: decoded images cannot be kept there ({error.strerror}); "
            "set TRAINER_CACHE_DIR to a folder that can be written"
        ) from error


def prune() -> tuple[int, int]:
    """Delete every entry that no process is writing → (entries, bytes) deleted. Who reads one keeps it."""
    count = size_bytes = 0
    for lock in cache_dir().glob("*.lock"):
        try:
            with FileLock(lock, timeout=0):
                for folder in lock.parent.glob(f"{lock.stem}-*"):
                    count += 1
                    size_bytes += sum(file.stat().st_size for file in folder.iterdir())
                    shutil.rmtree(folder)
        except Timeout:
            log.info("%s is being written and stays", lock.with_suffix(""))
    return count, size_bytes


def _find(place: Path, request: Request) -> ImageCache | None:
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
    return place.with_name(f"{place.name}-{_shape(pixels)}{normalize}")


@contextmanager
def _locked(place: Path) -> Iterator[None]:
    lock = FileLock(place.with_suffix(".lock"))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        log.info("waiting for another process that decodes the same images")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _build(place: Path, source: Source, request: Request, progress: bool | None) -> ImageCache:
    # Mostly all images are like the first, and nothing is decoded twice.
    sizes: Set[Size] = first_size(source.examples())
    while True:
        pixels = request.resolve(sizes)
        folder = _folder(place, pixels)
        partial = folder.with_suffix(PARTIAL)
        shutil.rmtree(partial, ignore_errors=True)  # of a writer that was killed
        partial.mkdir()
        try:
            _write(partial, source, pixels, request, sizes, progress)
            shutil.rmtree(folder, ignore_errors=True)  # a damaged one
            partial.rename(folder)
            return ImageCache(folder)
        except _OtherSizes as other:
            sizes = other.sizes
            log.info("the images differ in size or colour: decoding them again")
        finally:
            shutil.rmtree(partial, ignore_errors=True)


class _OtherSizes(Exception):
    """The native sizes met so far call for other pixels."""

    def __init__(self, sizes: Set[Size]) -> None:
        self.sizes = sizes


def _write(
    folder: Path,
    source: Source,
    pixels: PixelSpec,
    request: Request,
    expected: Set[Size],
    progress: bool | None,
) -> None:
    """Decode all of `source` into `folder`. Raises _OtherSizes as soon as an image does not fit `pixels`."""
    labels: list[int] = []
    names: list[str] = []
    splits: Counter[str] = Counter()
    sizes: Counter[Size] = Counter()
    rejected: list[tuple[Example, str]] = []
    digest = hashlib.sha256()
    processes = available_cpus() if _is_large(source) else 1
    labelled = (example for example in source.examples() if example.label >= 0)
    with closing(decode_all(labelled, pixels, processes)) as chunks, (folder / "images.bin").open("wb") as file:
        for chunk, decoded in track(chunks, lambda done: len(done[0]), total=len(source), bar=progress):
            if request.resolve(expected | decoded.sizes.keys()) != pixels:
                raise _OtherSizes(expected | decoded.sizes.keys())
            file.write(decoded.images.data)
            digest.update(decoded.images.data)
            sizes.update(decoded.sizes)
            for position, example in enumerate(chunk):
                if position in decoded.rejected:
                    rejected.append((example, decoded.rejected[position]))
                else:
                    labels.append(example.label)
                    names.append(example.name)
                    splits[example.split] += 1
    table = np.array(labels, np.int32)
    _judge(source, rejected, table[: splits["train"]])
    np.save(folder / "labels.npy", table, allow_pickle=False)
    (folder / "names.json").write_text(json.dumps(names), encoding="utf-8")
    starts = [0, *accumulate(splits[name] for name in SPLITS)]
    facts = {
        "labels": source.labels,
        "pixels": pixels.to_dict(),
        "splits": dict(zip(SPLITS, pairwise(starts), strict=True)),
    }
    digest.update(table.tobytes() + json.dumps(facts).encode())
    index = facts | {
        "sizes": [[*size, count] for size, count in sizes.items()],
        "rejected": [{"path": example.name, "reason": reason} for example, reason in rejected],
        "names_bytes": (folder / "names.json").stat().st_size,
        "unlabelled": len(source) - len(labels) - len(rejected),
        "fingerprint": digest.hexdigest()[:32],
    }
    (folder / "index.json").write_text(json.dumps(index), encoding="utf-8")
    log.info("decoded %d images to %s", len(labels), _shape(pixels))


def _is_large(source: Source) -> bool:
    """Whether decoding takes so long that processes are worth starting."""
    size_bytes = accumulate(example.size_bytes for example in source.examples())
    return any(total > WORTH_PROCESSES_BYTES for total in size_bytes)


def _judge(source: Source, rejected: list[tuple[Example, str]], train_labels: NDArray[np.int32]) -> None:
    """Log every rejected file; raise InputError where they are too many, or a class loses all its images."""
    for example, reason in rejected[:MAX_LOGGED]:
        log.warning("skipped %s: %s", example.name, reason)
    if len(rejected) > MAX_LOGGED:
        log.warning("skipped %d more", len(rejected) - MAX_LOGGED)
    total = len(source)
    if len(rejected) > MAX_REJECTED * total:
        first = "; ".join(f"{example.name} ({reason})" for example, reason in rejected[:3])
        raise InputError(
            f"--dataset: {source.spec}: {len(rejected)} of {total} images cannot be used, and at most 1 % are "
            f"skipped: {first}{'; …' if len(rejected) > 3 else ''}"
        )
    for label in sorted({example.label for example, _ in rejected if example.split == "train"}):
        if label not in train_labels:
            raise InputError(
                f"--dataset: {source.spec}: the class {source.labels[label]!r} has no image that can be used"
            )


def _shape(pixels: PixelSpec) -> str:
    return f"{pixels.height}x{pixels.width}x{pixels.channels}"
