"""Contact sheet: an image with samples of each class, as `trainer data inspect` draws it."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from trainer.data.dataset import Dataset
from trainer.files import write_bytes
from trainer.text import counted, printable

SAMPLES = 8  # per class
MAX_CLASSES = 50  # on a contact sheet
CELL = 64  # pixels a side
GAP = 4
MARGIN = 12  # on either side of the text
TEXT_WIDTH = 220  # at most
FONT_SIZE = 14


def draw_contact_sheet(dataset: Dataset, path: Path) -> None:
    """Write a PNG with a row per class: its name, its number of training images, and up to eight samples.

    The samples are as a model sees them. Only the first 50 classes are shown; the last line says how many are left.
    """
    split = dataset.train
    shown = dataset.class_names[:MAX_CLASSES]
    left_out = len(dataset.class_names) - len(shown)
    row_height = CELL + GAP
    font = ImageFont.load_default(FONT_SIZE)
    lines = [(_shorten(name, font), counted(count, "image")) for name, count in zip(shown, split.counts, strict=False)]
    left = 2 * MARGIN + round(max(font.getlength(line) for pair in lines for line in pair))
    size = (left + SAMPLES * row_height, len(shown) * row_height + GAP + bool(left_out) * (FONT_SIZE + 2 * GAP))
    sheet = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(sheet)
    for row, (name, count) in enumerate(lines):
        top = GAP + row * row_height
        draw.text((MARGIN, top + CELL // 2 - FONT_SIZE), name, "black", font)
        draw.text((MARGIN, top + CELL // 2 + GAP), count, "gray", font)
        for column, image in enumerate(_samples(dataset, row)):
            sheet.paste(image, (left + column * row_height, top))
    if left_out:
        draw.text((MARGIN, size[1] - FONT_SIZE - GAP), f"and {left_out} more classes", "gray", font)
    png = io.BytesIO()
    sheet.save(png, "PNG")
    write_bytes(path, png.getvalue())


def _samples(dataset: Dataset, label: int) -> Iterator[Image.Image]:
    """Samples of a class, evenly spaced: they should not all come from one nested folder."""
    members = np.flatnonzero(dataset.train.labels == label)
    step = max(1, len(members) // SAMPLES)
    for pixels in dataset.train.read(members[::step][:SAMPLES]):
        image = Image.fromarray(pixels if pixels.shape[2] == 3 else pixels[:, :, 0])
        scale = CELL / max(image.size)
        size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
        yield image.resize(size, Image.Resampling.NEAREST if scale >= 1 else Image.Resampling.BILINEAR)


def _shorten(name: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> str:
    text = printable(name)
    while font.getlength(text) > TEXT_WIDTH:
        text = text.removesuffix("…")[:-1] + "…"
    return text
