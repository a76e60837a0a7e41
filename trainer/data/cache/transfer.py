"""Copies entries of the cache from one machine to another: decoded images, and their features.

The same files have other times there, so that their source has another fingerprint: entries of images get a new name.
Entries of features are named by the content of the images, and keep their names.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable
from dataclasses import dataclass

from trainer.data.cache.entries import KEY, PARTIAL, cache_dir, draft_of, keep, locked
from trainer.data.cache.images import decoder_versions, source_prefix
from trainer.data.sources.base import Source
from trainer.files import tar_folder, untar

log = logging.getLogger("trainer")

MAX_BYTES = 512 * 2**20  # of one data set's entries


@dataclass(frozen=True)
class PackedEntry:
    """A folder of the cache as a tar."""

    name: str  # for images, the part after the prefix of their source; for features, the whole name
    of_images: bool
    decoders: tuple[str, ...]  # `decoder_versions` of the decoders that made the images
    files: bytes  # a tar


def pack(source: Source) -> list[PackedEntry]:
    """Cached entries of a source's images, the newest first, up to MAX_BYTES together."""
    prefix = source_prefix(source)
    images = [folder for folder in prefix.parent.glob(f"{prefix.name}-*") if folder.suffix != PARTIAL]
    fingerprints = {json.loads((folder / "index.json").read_text())["fingerprint"] for folder in images}
    features = [
        key.parent for key in cache_dir().glob(f"*/{KEY}") if json.loads(key.read_text()).get("images") in fingerprints
    ]
    entries, left = [], MAX_BYTES
    for folder in sorted((*images, *features), key=lambda folder: folder.stat().st_mtime, reverse=True):
        size = sum(file.stat().st_size for file in folder.iterdir())
        if size > left:
            log.info("%s: %.0f MB of decoded images are too large to send", source.spec, size / 1e6)
            continue
        left -= size
        of_images = folder in images
        name = folder.name.removeprefix(prefix.name) if of_images else folder.name
        entries.append(PackedEntry(name, of_images, decoder_versions(), tar_folder(folder)))
    return entries


def unpack(source: Source, entries: Iterable[PackedEntry]) -> None:
    """Add entries of the same images to this machine's cache, except those that it has."""
    prefix = source_prefix(source)
    for entry in entries:
        if entry.of_images and entry.decoders != decoder_versions():
            log.info("images decoded by %s are not used here", ", ".join(entry.decoders))
            continue
        folder = prefix.with_name(prefix.name + entry.name) if entry.of_images else cache_dir() / entry.name
        with locked(prefix if entry.of_images else folder.with_name(entry.name.partition("-")[0])):
            if not folder.exists():
                with draft_of(folder) as draft:
                    untar(entry.files, draft)
                    keep(draft, folder)
