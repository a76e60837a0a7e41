"""What every source of images offers: encoded examples per split, class names and a cheap fingerprint."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple, Protocol

# What folders, tables and TFDS call their splits (in any case) → what they are called here, in the order they are read.
SPLIT_NAMES = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "val"),
    **dict.fromkeys(("test", "testing", "eval"), "test"),
}
SPLITS = ("train", "val", "test")


class Example(NamedTuple):
    """One encoded image."""

    split: str  # one of SPLITS
    label: int  # index into the source's class names; -1: has none, and is ignored
    name: str  # how a person finds it
    data: str | bytes  # a path to read, or the encoded bytes
    size_bytes: int  # of the encoded bytes


class Source(Protocol):
    """Where images come from. Making one reads no image."""

    spec: str  # canonical: the same data has the same spec
    name: str  # what a model is called that learns from it
    class_names: tuple[str, ...]  # at least two
    fingerprint: str  # changes when the data may have changed; cheap: no image is read for it
    default_normalize: str  # none | mnist
    ignored: int  # entries that are no images

    def __len__(self) -> int:
        """The number of examples."""

    def examples(self) -> Iterator[Example]:
        """Every example, always in the same order, all of one split before the next."""
