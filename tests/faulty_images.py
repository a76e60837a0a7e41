"""A folder of images with every fault that the data checks find."""

from __future__ import annotations

import io
import json
import shutil
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFilter
from sklearn.datasets import load_digits

CLASSES = ("zero", "one", "four")
SIDE = 96


def draw_digits(root: Path) -> None:
    """`root`/{train,test}/CLASS/NUMBER.png: sharp handwritten digits on different coloured backgrounds."""
    digits = load_digits()
    random = np.random.default_rng(0)
    for class_name, digit in zip(CLASSES, (0, 1, 4), strict=True):
        for number, image in enumerate(digits.images[digits.target == digit][:56]):
            background = Image.fromarray(random.integers(60, 160, (12, 12, 3), np.uint8)).resize((SIDE, SIDE), 0)
            ink = Image.fromarray((image * (255 / 16)).astype(np.uint8)).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
            mask = ink.point(lambda value: 255 * (value > 110))
            background.paste((255, 250, 220), mask=mask)
            path = root / ("train" if number < 44 else "test") / class_name / f"{number:03}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            background.save(path)


def add_faults(root: Path) -> None:
    """Add duplicates, wrong labels and low-quality images to the folder of `draw_digits`."""

    def opened(name: str) -> Image.Image:
        return Image.open(root / name).convert("RGB")

    opened("train/zero/000.png").transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(root / "train/zero/mirrored.png")
    opened("train/one/001.png").resize((80, 80)).save(root / "test/one/again.jpg", quality=80)
    opened("train/four/002.png").crop((0, 4, SIDE - 4, SIDE)).save(root / "train/four/cropped.jpg", quality=90)
    shutil.copy(root / "train/one/003.png", root / "train/four/same.png")
    for number in (10, 11):
        shutil.move(root / f"train/zero/{number:03}.png", root / f"train/one/wrong{number}.png")
    shutil.move(root / "train/four/012.png", root / "train/zero/wrong12.png")
    Image.new("RGB", (SIDE, SIDE), "teal").save(root / "train/zero/blank.png")
    opened("train/one/014.png").point(lambda value: value // 12).save(root / "train/one/dark.png")
    (root / "train/one/014.png").unlink()
    opened("train/four/015.png").filter(ImageFilter.GaussianBlur(4)).save(root / "train/four/blurred.png")
    (root / "train/four/015.png").unlink()
    opened("train/four/016.png").resize((12, 12)).save(root / "train/four/tiny.png")
    (root / "train/four/016.png").unlink()
    opened("train/one/017.png").resize((SIDE, 5 * SIDE)).save(root / "train/one/long.png")
    (root / "train/one/017.png").unlink()
    placeholder = Image.new("RGB", (SIDE, SIDE), "white")
    ImageDraw.Draw(placeholder).text((8, 40), "image not found", fill="gray")
    placeholder.save(root / "train/four/placeholder.png")


class Inspected(NamedTuple):
    """Output of `trainer data inspect FOLDER --json --page PAGE`."""

    findings: dict[str, Any]
    page: Path


def inspect(root: Path, home: Path) -> Inspected:
    """Inspect the folder `root`; `home` gets the contact sheet and the page."""
    from trainer.cli import run

    page = home / "page.html"
    with redirect_stdout(io.StringIO()) as stdout:
        assert run(["data", "inspect", str(root), "--json", f"--sheet={home / 'sheet.png'}", f"--page={page}"]) == 0
    return Inspected(json.loads(stdout.getvalue())["findings"], page)
