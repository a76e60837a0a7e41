"""What `trainer data inspect` shows: the facts of a dataset, and a contact sheet of its images."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from trainer.data.cache.writer import Rejected
from trainer.data.dataset import Dataset
from trainer.images.pixels import PixelSpec

SAMPLES = 8  # per class
MAX_CLASSES = 50  # on a contact sheet
CELL = 64  # pixels a side
GAP = 4
MARGIN = 12  # on either side of the text
TEXT_WIDTH = 220  # at most
FONT_SIZE = 14


@dataclass(frozen=True)
class Summary:
    """The facts of a dataset."""

    spec: str
    class_names: tuple[str, ...]
    counts: dict[str, tuple[int, ...]]  # train | val | test → images per class, in the order of `class_names`
    pixels: PixelSpec  # what the images are decoded to
    sizes: tuple[tuple[int, int, int, int], ...]  # native (height, width, channels, images), most frequent first
    rejected: tuple[Rejected, ...]
    ignored: int  # files that are no images, and images without a class

    @property
    def imbalance(self) -> float:
        """Training images of the largest class for each of the smallest; infinite where that has none."""
        counts = self.counts["train"]
        return max(counts) / min(counts) if min(counts) else float("inf")

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values; the class names have the key `labels`."""
        facts = asdict(self)
        return {"spec": facts.pop("spec"), "labels": facts.pop("class_names"), **facts}


def summarize(dataset: Dataset) -> Summary:
    """The facts of `dataset`; no image is read."""
    splits = {"train": dataset.train, "val": dataset.val, "test": dataset.test}
    sizes = dataset.train.cache.sizes
    return Summary(
        spec=dataset.spec,
        class_names=dataset.class_names,
        counts={name: tuple(split.counts.tolist()) for name, split in splits.items()},
        pixels=dataset.pixels,
        sizes=tuple(sorted(((*size, count) for size, count in sizes.items()), key=lambda entry: -entry[3])),
        rejected=dataset.rejected,
        ignored=dataset.ignored,
    )


def contact_sheet(dataset: Dataset, path: Path) -> None:
    """Write a PNG with a row per class: its name, training images, and up to eight of them, as a model sees them.

    Of more than 50 classes the first 50 are shown; the last line says so.
    """
    split = dataset.train
    shown = dataset.class_names[:MAX_CLASSES]
    left_out = len(dataset.class_names) - len(shown)
    row_height = CELL + GAP
    font = ImageFont.load_default(FONT_SIZE)
    lines = [(_shorten(label, font), f"{count} images") for label, count in zip(shown, split.counts, strict=False)]
    left = 2 * MARGIN + round(max(font.getlength(line) for pair in lines for line in pair))
    size = (left + SAMPLES * row_height, len(shown) * row_height + GAP + bool(left_out) * (FONT_SIZE + 2 * GAP))
    sheet = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(sheet)
    for row, (label, count) in enumerate(lines):
        top = GAP + row * row_height
        draw.text((MARGIN, top + CELL // 2 - FONT_SIZE), label, "black", font)
        draw.text((MARGIN, top + CELL // 2 + GAP), count, "gray", font)
        for column, image in enumerate(_samples(dataset, row)):
            sheet.paste(image, (left + column * row_height, top))
    if left_out:
        draw.text((MARGIN, size[1] - FONT_SIZE - GAP), f"and {left_out} more classes", "gray", font)
    sheet.save(path, "PNG")


def _samples(dataset: Dataset, label: int) -> Iterator[Image.Image]:
    """Evenly spaced over the class, so that they do not all come from the same nested folder."""
    members = np.flatnonzero(dataset.train.labels == label)
    step = max(1, len(members) // SAMPLES)
    for pixels in dataset.train.read(members[::step][:SAMPLES]):
        image = Image.fromarray(pixels if pixels.shape[2] == 3 else pixels[:, :, 0])
        scale = CELL / max(image.size)
        size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
        yield image.resize(size, Image.Resampling.NEAREST if scale >= 1 else Image.Resampling.BILINEAR)


def _shorten(label: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> str:
    text = label
    while font.getlength(text) > TEXT_WIDTH:
        text = text.removesuffix("…")[:-1] + "…"
    return text
