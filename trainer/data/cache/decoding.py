"""Decodes many images, in parallel processes where that pays. TensorFlow is never imported here."""

from __future__ import annotations

import errno
import gc
import logging
import multiprocessing
import os
import signal
import warnings
from collections import Counter, deque
from collections.abc import Generator, Iterable, Iterator, Set
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from trainer.data.perceptual_hash import perceptual_hashes
from trainer.data.sources.base import Example
from trainer.data.splits import content_hash
from trainer.errors import ImageError, RunError
from trainer.images.decode import EncodedImage
from trainer.images.pixels import PixelSpec

log = logging.getLogger("trainer")

# A chunk is large enough that sending it costs little, and small enough that progress is visible.
CHUNK_IMAGES = 256
CHUNK_BYTES = 4 << 20  # encoded
CHUNK_DECODED_BYTES = 16 << 20
CHUNKS_AHEAD = 2  # queued per worker, so that it never waits for its next
MAX_WAITING_BYTES = 64 << 20  # of decoded images that wait for an earlier chunk
# Starting a process takes as long as decoding about this much in one.
MIN_PARALLEL_BYTES = 2 << 20
POOL_LOCKS = 8  # of a pool, besides one for each worker; they lie in /dev/shm

Size = tuple[int, int, int]  # native height, width (upright) and channels


@dataclass(frozen=True)
class NativeFacts:
    """Facts about images as they are in their files, from which the pixel spec of a data set follows."""

    sizes: Set[Size] = frozenset()
    bits: int = 0  # the most that a 16-bit gray image uses; 0 without any
    turned: bool = False  # whether an image has to be turned or mirrored by its EXIF orientation

    def __or__(self, other: NativeFacts) -> NativeFacts:
        return NativeFacts(self.sizes | other.sizes, max(self.bits, other.bits), self.turned or other.turned)


class Decoded(NamedTuple):
    """The result of a chunk of examples."""

    images: NDArray[np.uint8]  # [n,H,W,C], without the rejected
    content_hashes: NDArray[np.uint64]  # [n]
    perceptual_hashes: NDArray[np.uint64]  # [n,5]
    sizes: Counter[Size]  # → images
    bits: int  # see `NativeFacts`
    turned: bool
    rejected: dict[int, str]  # position in the chunk → reason
    has_unreadable: bool  # a file could not be read, which may pass

    @property
    def native(self) -> NativeFacts:
        """Facts about the images of the chunk."""
        return NativeFacts(frozenset(self.sizes), self.bits, self.turned)


def decode_all(
    examples: Iterable[Example], pixels: PixelSpec, processes: int
) -> Generator[tuple[list[Example], Decoded], None, None]:
    """Decode in order, chunk by chunk, in this process and `processes` - 1 workers.

    A worker takes half a second to start; meanwhile this process decodes. The decoded images that wait for an earlier
    chunk are bounded, so that memory stays flat. Without shared memory, this process decodes alone. Raises RunError
    where a worker is killed.
    """
    image_bytes = pixels.height * pixels.width * pixels.channels
    chunks = _chunks(examples, most=max(1, min(CHUNK_IMAGES, CHUNK_DECODED_BYTES // image_bytes)))
    pool = _start_pool(processes - 1) if processes > 1 else None
    if pool is None:
        for chunk in chunks:
            yield chunk, _decode_chunk([(e.data, e.size_bytes) for e in chunk], pixels)
        return
    pending: deque[tuple[list[Example], Future[Decoded]]] = deque()
    gc.freeze()  # as in a worker
    try:
        for chunk in chunks:
            data = [(e.data, e.size_bytes) for e in chunk]
            if sum(not future.done() for _, future in pending) < CHUNKS_AHEAD * (processes - 1):
                pending.append((chunk, pool.submit(_decode_chunk, data, pixels)))
            else:
                future: Future[Decoded] = Future()
                future.set_result(_decode_chunk(data, pixels))
                pending.append((chunk, future))
            while pending and (pending[0][1].done() or image_bytes * _count(pending) > MAX_WAITING_BYTES):
                done, future = pending.popleft()
                yield done, future.result()
        for done, future in pending:
            yield done, future.result()
    except BrokenProcessPool as error:
        raise RunError("a process that decoded images was killed, perhaps for lack of memory; run it again") from error
    finally:
        for _, future in pending:
            future.cancel()
        pool.shutdown()
        gc.unfreeze()


def _count(pending: Iterable[tuple[list[Example], Future[Decoded]]]) -> int:
    return sum(len(chunk) for chunk, _ in pending)


def _start_pool(workers: int) -> Any:
    """Pool of worker processes; None without /dev/shm, which they need and a container may lack."""
    # joblib's pool: a fork of a process with TensorFlow's threads may hang, and the standard library's spawn runs
    # the caller's script again in each worker, with all its imports.
    with warnings.catch_warnings(action="ignore"):  # joblib warns of the same
        from joblib.externals.loky import ProcessPoolExecutor  # type: ignore[import-untyped]
    try:
        # Try as many locks as the pool needs: it makes some of them later, when there may be no space for one more.
        make_lock = multiprocessing.get_context("fork").Lock
        locks = [make_lock() for _ in range(workers + POOL_LOCKS)]
        del locks
        return ProcessPoolExecutor(workers, initializer=start_worker)
    except OSError as error:
        log.warning("decoding in one process: /dev/shm cannot be used (%s)", error.strerror)
        return None


def first_native(examples: Iterable[Example]) -> NativeFacts:
    """Facts about the first of `examples` that can be decoded; empty if none can."""
    for example in examples:
        decoded = _decode_chunk([(example.data, example.size_bytes)], PixelSpec(1, 1, 3))
        if decoded.sizes:
            return decoded.native
    return NativeFacts()


def _chunks(examples: Iterable[Example], most: int) -> Iterator[list[Example]]:
    chunk: list[Example] = []
    size_bytes = 0
    for example in examples:
        chunk.append(example)
        size_bytes += example.size_bytes
        if len(chunk) == most or size_bytes >= CHUNK_BYTES:
            yield chunk
            chunk, size_bytes = [], 0
    if chunk:
        yield chunk


def _decode_chunk(chunk: list[tuple[str | bytes, int]], pixels: PixelSpec) -> Decoded:
    # One tall image, converted to one array: an array for each image takes a seventh of the decoding of a small one.
    sheet = Image.new("L" if pixels.channels == 1 else "RGB", (pixels.width, len(chunk) * pixels.height))
    sizes: Counter[Size] = Counter()
    rejected: dict[int, str] = {}
    contents: list[int] = []
    bits, turned, has_unreadable = 0, False, False
    for position, (source, size_bytes) in enumerate(chunk):
        try:
            data = _read(source, size_bytes)
            image = EncodedImage(data)
            sheet.paste(image.render(pixels), (0, len(contents) * pixels.height))
        except ImageError as error:
            rejected[position] = str(error)
        except OSError as error:
            rejected[position] = f"cannot be read: {error.strerror or error}"
            # A link that was broken when the files were listed is part of the source's state.
            has_unreadable |= bool(size_bytes) or error.errno not in (errno.ENOENT, errno.ELOOP)
        else:
            sizes[image.info.height, image.info.width, image.info.channels] += 1
            bits = max(bits, image.used_bits)
            turned |= image.orientation != 1
            contents.append(content_hash(data))
    images = np.asarray(sheet).reshape(len(chunk), pixels.height, pixels.width, pixels.channels)[: len(contents)]
    return Decoded(
        images, np.array(contents, np.uint64), perceptual_hashes(images), sizes, bits, turned, rejected, has_unreadable
    )


def _read(source: str | bytes, size_bytes: int) -> bytes:
    """Encoded bytes; a file is read in three system calls, as opening dominates for small files."""
    if isinstance(source, bytes):
        return source
    file = os.open(source, os.O_RDONLY)
    try:
        data = os.read(file, size_bytes + 1)
        while len(data) != size_bytes and (more := os.read(file, 1 << 20)):
            data += more
        return data
    finally:
        os.close(file)


def start_worker() -> None:
    """Prepare a worker process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent handles Ctrl-C and ends its workers
    gc.freeze()  # decoding makes no cycles, and the collector's search of the imported modules took a tenth of the time
