"""Decodes the images of a source into the files of a cache entry, and logs the rejected files."""

from __future__ import annotations

import hashlib
import json
import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainer.data.cache.decoding import MIN_PARALLEL_BYTES, NativeFacts, Size, decode_all
from trainer.data.cache.entries import save_array
from trainer.data.perceptual_hash import HASH_WORDS, group_near_duplicates
from trainer.data.pixel_request import PixelRequest, stored_spec
from trainer.data.progress import track
from trainer.data.sources.base import SPLITS, Example, Source
from trainer.images.pixels import PixelSpec
from trainer.machine import available_cpus

log = logging.getLogger("trainer")

# More rejected files than this share of all, and than a few, mean that something is wrong with the whole data set.
MAX_REJECTED_SHARE = 0.01
FEW_REJECTED = 5
MAX_LOGGED = 50  # rejected files


@dataclass(frozen=True)
class Rejected:
    """A file that is not a usable image."""

    path: str  # relative to the dataset
    reason: str


def log_rejected(rejected: Sequence[Rejected]) -> None:
    """Log the first MAX_LOGGED rejected files, and how many more there are."""
    for file in rejected[:MAX_LOGGED]:
        log.warning("skipped %s: %s", file.path, file.reason)
    if len(rejected) > MAX_LOGGED:
        log.warning("skipped %d more", len(rejected) - MAX_LOGGED)


def is_too_many(rejected: int, total: int) -> bool:
    """Whether so many rejected files, of `total`, are more than a fit skips."""
    return rejected > max(FEW_REJECTED, MAX_REJECTED_SHARE * total)


class OtherNative(Exception):
    """The images seen so far require another pixel spec."""

    def __init__(self, native: NativeFacts) -> None:
        self.native = native


def write_images(
    folder: Path,
    source: Source,
    pixels: PixelSpec,
    request: PixelRequest,
    native: NativeFacts,
    progress: bool | None,
) -> bool:
    """Decode all of `source` into `folder` as `pixels`; returns whether every file could be read.

    `native`: what is known of the images. Raises OtherNative as soon as an image does not fit `pixels`.
    """
    labels: list[int] = []
    contents: list[NDArray[np.uint64]] = [np.empty(0, np.uint64)]
    hashes: list[NDArray[np.uint64]] = [np.empty((0, HASH_WORDS), np.uint64)]
    names: list[str] = []
    splits: Counter[str] = Counter()
    sizes: Counter[Size] = Counter()
    unlabelled: Counter[str] = Counter()  # split → images without a class
    rejected: list[Rejected] = []
    digest, has_unreadable = hashlib.sha256(), False
    processes = available_cpus() if _is_large(source) else 1
    labelled = _labelled(source.examples(), unlabelled)
    with closing(decode_all(labelled, pixels, processes)) as chunks, (folder / "images.bin").open("wb") as file:
        for chunk, decoded in track(chunks, lambda done: len(done[0]), total=len(source), bar=progress):
            native |= decoded.native
            if stored_spec(request.resolve(native), native) != pixels:
                raise OtherNative(native)
            file.write(decoded.images.data)
            digest.update(decoded.images.data)
            contents.append(decoded.content_hashes)
            hashes.append(decoded.perceptual_hashes)
            sizes.update(decoded.sizes)
            has_unreadable |= decoded.has_unreadable
            for position, example in enumerate(chunk):
                if position in decoded.rejected:
                    rejected.append(Rejected(example.name, decoded.rejected[position]))
                else:
                    labels.append(example.label)
                    names.append(example.name)
                    splits[example.split] += 1
    all_labels = np.array(labels, np.int32)
    content_hashes = np.concatenate(contents)
    _save_arrays(folder, all_labels, content_hashes, np.concatenate(hashes))
    (folder / "names.json").write_text(json.dumps(names), encoding="utf-8")
    starts = [0, *accumulate(splits[name] for name in SPLITS)]
    facts = {
        "labels": source.class_names,
        "pixels": pixels.to_dict(),
        "splits": dict(zip(SPLITS, pairwise(starts), strict=True)),
    }
    digest.update(all_labels.tobytes() + content_hashes.tobytes() + json.dumps(facts).encode())
    index = facts | {
        "bits": native.bits,
        "turned": native.turned,
        "sizes": [[*size, count] for size, count in sizes.items()],
        "rejected": [asdict(file) for file in rejected],
        "names_bytes": (folder / "names.json").stat().st_size,
        "unlabelled": unlabelled.total(),
        "fingerprint": digest.hexdigest()[:32],
    }
    (folder / "index.json").write_text(json.dumps(index), encoding="utf-8")
    log.info("decoded %d images to %s", len(labels), pixels.shape_name)
    for name, count in unlabelled.items():
        log.warning("%s: %d images of %s have no class and are not used", source.spec, count, name)
    return not has_unreadable


def _save_arrays(
    folder: Path,
    labels: NDArray[np.int32],
    content_hashes: NDArray[np.uint64],
    perceptual_hashes: NDArray[np.uint64],
) -> None:
    arrays: dict[str, NDArray[Any]] = {
        "labels": labels,
        "content_hashes": content_hashes,
        "perceptual_hashes": perceptual_hashes,
        "near_duplicates": group_near_duplicates(content_hashes, perceptual_hashes),
    }
    for name, array in arrays.items():
        save_array(folder / f"{name}.npy", array)


def _labelled(examples: Iterable[Example], unlabelled: Counter[str]) -> Iterator[Example]:
    """Examples with a class; the others are counted by split."""
    for example in examples:
        if example.label >= 0:
            yield example
        else:
            unlabelled[example.split] += 1


def _is_large(source: Source) -> bool:
    """Whether decoding takes so long that starting processes pays."""
    size_bytes = accumulate(example.size_bytes for example in source.examples())
    return any(total > MIN_PARALLEL_BYTES for total in size_bytes)
