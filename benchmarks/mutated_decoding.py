"""Mutated images decoded in a process of their own, which is replaced when it dies.

The process may have 2 GiB for its data. A failure is another exception than ImageError, the end of the process, more
than a second of CPU time, or more memory than `decoding_bytes` says.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import resource
import time
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from random import Random
from typing import Any

import psutil
from mutations import mutated
from PIL import Image
from seed_images import drawn, seed_images

from trainer.errors import ImageError
from trainer.images.decode import EncodedImage
from trainer.images.pixels import PixelSpec

SPECS = (PixelSpec(28, 28, 1, normalize="mnist"), PixelSpec(28, 28, 1), PixelSpec(160, 160, 3))
DECODED = "decoded"
RESULTS = (DECODED, "unsupported_type", "too_many_pixels", "corrupt_image", "empty_body")
MAX_CPU_S = 1.0
MAX_STILL_S = 60.0  # without CPU time: a deadlock
MAX_DATA_BYTES = 2 << 30  # libwebp reserves 1.4 GB, and does not touch them, for a canvas that is then refused
# Besides `decoding_bytes`: copies of the file, without metadata or with an end, and what the libraries keep.
COPIES = 3
SLACK_BYTES = 8 << 20
POLL_S = 0.2
# The process begins with nothing of this one: a fork would inherit its memory and its locks.
SPAWN = multiprocessing.get_context("spawn")

Images = Callable[[int], bytes]  # number → image


class Failed(Exception):
    """Reason why a mutated image counts as a failure: it did what none must do."""


@dataclass
class Outcome:
    """How many images were decoded or refused, and what went wrong."""

    counts: Counter[str] = field(default_factory=Counter)  # of RESULTS
    failures: dict[int, str] = field(default_factory=dict)  # number of the image → reason


class Mutator:
    """Mutated images by their numbers; `photo` is what they show."""

    def __init__(self, seed: int, photo: Image.Image) -> None:
        self._seed = seed
        self.originals = list(seed_images(photo).values())

    def __call__(self, number: int) -> bytes:
        random = Random(f"{self._seed}:{number}")
        return mutated(random.choice(self.originals), random.choice(self.originals), random)


def result_of(data: bytes, spec: PixelSpec) -> str:
    """One of RESULTS. Raises Failed, and whatever the decoder raises that is no ImageError."""
    start_bytes, start_s, bound = _reset_peak(), time.process_time(), 0
    try:
        image = EncodedImage(data)
        bound = image.decoding_bytes(spec)
        image.decode(spec)
        result = DECODED
    except ImageError as error:
        if isinstance(error.__cause__, MemoryError | Warning):
            raise Failed(repr(error.__cause__)) from error
        result = error.code
    seconds, taken = time.process_time() - start_s, _peak_bytes() - start_bytes
    if seconds > MAX_CPU_S:
        raise Failed(f"{seconds:.1f} s of CPU time")
    if taken > bound + COPIES * len(data) + SLACK_BYTES:
        raise Failed(f"{taken >> 20} MiB of memory, of {bound >> 20}")
    return result


def decode_all(images: Images, numbers: range) -> Outcome:
    """Decode the images of these numbers in a process of its own, or in several if it dies. `images` can be pickled."""
    outcome = Outcome()
    counts = SPAWN.RawArray("q", len(RESULTS))
    current = SPAWN.RawValue("q", numbers.start)
    while current.value < numbers.stop:
        ours, theirs = SPAWN.Pipe(duplex=False)
        arguments = (images, range(current.value, numbers.stop), counts, current, theirs)
        process = SPAWN.Process(target=_decode, args=arguments)
        process.start()
        theirs.close()
        ours.recv()  # it is ready
        if reason := _watch(process, current, ours, outcome.failures):
            outcome.failures[current.value] = reason
            current.value += 1
    outcome.counts.update({name: count for name, count in zip(RESULTS, counts, strict=True) if count})
    return outcome


def _decode(images: Images, numbers: range, counts: Any, current: Any, messages: Connection) -> None:
    """Body of the process: counts the results, and sends the failures."""
    warnings.simplefilter("ignore")
    for data in seed_images(drawn()).values():  # libraries are loaded, and have what they keep
        for spec in SPECS:
            EncodedImage(data).decode(spec)
    resource.setrlimit(resource.RLIMIT_DATA, (MAX_DATA_BYTES, MAX_DATA_BYTES))
    messages.send("ready")
    for number in numbers:
        current.value = number
        try:
            result = result_of(images(number), SPECS[number % len(SPECS)])
            counts[RESULTS.index(result)] += 1
        except Exception as error:
            messages.send((number, str(error) if isinstance(error, Failed) else repr(error)))
    current.value = numbers.stop


def _watch(process: BaseProcess, current: Any, messages: Connection, failures: dict[int, str]) -> str | None:
    """Wait for the end of the process, and collect `failures`; returns the reason if the current image ended it."""
    number, start_s, since = -1, 0.0, 0.0
    while True:
        ended = wait([process.sentinel], POLL_S)
        with contextlib.suppress(EOFError):
            while messages.poll():
                failures.update([messages.recv()])
        if ended:
            process.join()
            return f"the process ended with {process.exitcode}" if process.exitcode else None
        spent_s = _cpu_s(process.pid)
        if current.value != number:
            number, start_s, since = current.value, spent_s, time.monotonic()
        elif spent_s - start_s > 2 * MAX_CPU_S or time.monotonic() - since > MAX_STILL_S:
            process.kill()
            process.join()
            return f"no end after {spent_s - start_s:.1f} s of CPU time"


def _cpu_s(pid: int | None) -> float:
    try:
        times = psutil.Process(pid).cpu_times()
    except psutil.NoSuchProcess:
        return 0.0
    return float(times.user + times.system)


def _reset_peak() -> int:
    """Let the peak of this process's memory begin again; returns the bytes it has now."""
    Path("/proc/self/clear_refs").write_text("5")
    return _peak_bytes()


def _peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def minimized(data: bytes) -> bytes:
    """A smaller file that still fails: parts of it are left out, in halves, quarters, and so on."""
    size = len(data) // 2
    while size:
        candidates = [data[:start] + data[start + size :] for start in range(0, len(data), size)]
        images = [candidate for candidate in candidates for _ in SPECS]
        failures = decode_all(images.__getitem__, range(len(images))).failures
        if failures:
            data = candidates[min(failures) // len(SPECS)]
        else:
            size //= 2
    return data
