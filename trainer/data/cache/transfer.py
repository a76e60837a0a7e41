"""Entries of the cache from one machine to another: decoded images, and the features of them.

The source of the images may have another fingerprint there, as its files have other times: the entries of the images
are named anew. Those of features are named by what the images show, and keep their names.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable
from dataclasses import dataclass

from trainer.data.cache.entries import KEY, PARTIAL, cache_dir, locked, write_entry
from trainer.data.cache.images import place_of_source
from trainer.data.sources.base import Source
from trainer.files import tar_folder, untar

log = logging.getLogger("trainer")

LARGEST = 512 * 2**20  # bytes of one data set's entries that are taken along


@dataclass(frozen=True)
class Entry:
    """A folder of the cache, packed."""

    name: str  # of decoded images, what follows the name of their source's place; of others, all of it
    of_images: bool
    files: bytes  # a tar


def pack(source: Source) -> list[Entry]:
    """What the cache has of a source's images, the newest first, as long as it is below LARGEST."""
    place = place_of_source(source)
    images = [folder for folder in place.parent.glob(f"{place.name}-*") if folder.suffix != PARTIAL]
    shown = {json.loads((folder / "index.json").read_text())["fingerprint"] for folder in images}
    features = [
        key.parent for key in cache_dir().glob(f"*/{KEY}") if json.loads(key.read_text()).get("images") in shown
    ]
    entries, left = [], LARGEST
    for folder in sorted((*images, *features), key=lambda folder: folder.stat().st_mtime, reverse=True):
        size = sum(file.stat().st_size for file in folder.iterdir())
        if size > left:
            log.info("%s: %.0f MB of decoded images are too many to take along", source.spec, size / 1e6)
            continue
        left -= size
        of_images = folder in images
        entries.append(
            Entry(folder.name.removeprefix(place.name) if of_images else folder.name, of_images, tar_folder(folder))
        )
    return entries


def unpack(source: Source, entries: Iterable[Entry]) -> None:
    """Put entries of the same images into this machine's cache, but those that it has."""
    place = place_of_source(source)
    for entry in entries:
        folder = place.with_name(place.name + entry.name) if entry.of_images else cache_dir() / entry.name
        with locked(place if entry.of_images else folder.with_name(entry.name.partition("-")[0])):
            if not folder.exists():
                write_entry(folder, lambda partial, files=entry.files: untar(files, partial))  # type: ignore[misc]
