"""Interface of every source of images: encoded examples, class names and a cheap fingerprint."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple, Protocol

# Names of splits in folders, tables and TFDS (in lower case) → the name here.
SPLIT_NAMES = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "val"),
    **dict.fromkeys(("test", "testing", "eval"), "test"),
}
SPLITS = ("train", "val", "test")


class Example(NamedTuple):
    """One encoded image."""

    split: str  # one of SPLITS
    label: int  # index into the source's class names; -1: no class, ignored
    name: str  # path or key by which a person finds it
    data: str | bytes  # a path to read, or the encoded bytes
    size_bytes: int  # of the encoded bytes


class Source(Protocol):
    """A data set of encoded images. The constructor reads no image."""

    spec: str  # canonical: the same data has the same spec
    name: str  # default name of a model that is fitted on it
    class_names: tuple[str, ...]  # at least two
    fingerprint: str  # identifies the data; changes with names, sizes and modification times of files
    state: str  # changes whenever a file may have changed; no image is read for it
    default_normalize: str  # none | mnist
    ignored: int  # entries that are not images

    def __len__(self) -> int:
        """Number of examples."""

    def examples(self) -> Iterator[Example]:
        """All examples, always in the same order, one split after the other."""
