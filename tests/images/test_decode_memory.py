"""Peak memory of decoding against the bound of `decoding_bytes`, each image in its own process."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pillow_heif
import pytest
from encoded_images import bmp
from PIL import Image

SIDE = 1200
# Forks, so that memory freed by one image is not reused for the next.
CODE = """
import os, sys
from pathlib import Path
from trainer.images.decode import EncodedImage
from trainer.images.pixels import PixelSpec

def kilobytes(key):
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith(key))

from pillow_heif import HeifImageFile  # import it before the measurement
specs = [PixelSpec(28, 28, 1, normalize="mnist"), PixelSpec(28, 28, 1), PixelSpec(160, 160, 3), PixelSpec(600, 600, 3)]
specs += [PixelSpec(600, 500, 3, "pad")]
for file in sorted(Path(sys.argv[1]).iterdir()):
    for spec in specs:
        child = os.fork()
        if not child:
            data = file.read_bytes()
            before = kilobytes("VmRSS")
            image = EncodedImage(data)
            bound = image.decoding_bytes(spec)
            image.decode(spec)
            taken = (kilobytes("VmHWM") - before) * 1024
            print(file.name, spec.shape_name, spec.normalize, taken, bound, flush=True)
            os._exit(0)
        os.waitpid(child, 0)
"""


def write_images(folder: Path) -> int:
    """Write a file for each format and mode with its own decoding path; returns their number."""
    y, x = np.mgrid[:SIDE, :SIDE]
    colour = Image.fromarray(np.stack([x * 255 // SIDE, y * 255 // SIDE, (x + y) % 256], -1).astype(np.uint8))
    gray = colour.convert("L")
    transparent = colour.convert("RGBA")
    transparent.putalpha(gray)
    palette = colour.quantize(64)
    deep = Image.fromarray(np.asarray(gray).astype(np.uint16) * 257)
    files: dict[str, tuple[Image.Image, dict[str, Any]]] = {
        "colour.png": (colour, {}),
        "gray.png": (gray, {}),
        "transparent.png": (transparent, {}),
        "gray-transparent.png": (transparent.convert("LA"), {}),
        "palette.png": (palette, {}),
        "palette-key.png": (palette, {"transparency": 3}),
        "colour-key.png": (colour, {"transparency": (1, 2, 3)}),
        "gray-key.png": (gray, {"transparency": 3}),
        "deep.png": (deep, {}),
        "bits.png": (gray.convert("1"), {}),
        "palette.gif": (palette, {}),
        "palette-key.gif": (palette, {"transparency": 3}),
        "colour.bmp": (colour, {}),
        "palette.bmp": (palette, {}),
        "colour.webp": (colour, {"method": 0}),
        "transparent.webp": (transparent, {"method": 0}),
        "lossless.webp": (transparent, {"lossless": True, "quality": 0, "method": 0}),
        "colour.avif": (colour, {"speed": 10}),
        "full.avif": (colour, {"speed": 10, "subsampling": "4:4:4"}),
        "transparent.avif": (transparent, {"speed": 10, "subsampling": "4:4:4"}),
        "colour.jpeg": (colour, {}),
        "gray.jpeg": (gray, {}),
        "ink.jpeg": (colour.convert("CMYK"), {}),
        "scans.jpeg": (colour, {"progressive": True}),
        "full-scans.jpeg": (colour, {"progressive": True, "subsampling": 0}),
        "ink-scans.jpeg": (colour.convert("CMYK"), {"progressive": True}),
        "narrow.png": (Image.new("RGB", (2, SIDE * SIDE // 2)), {}),
    }
    for name, (image, options) in files.items():
        file = io.BytesIO()
        image.save(file, name.rpartition(".")[2], **options)
        (folder / name).write_bytes(file.getvalue())
    (folder / "endless.jpeg").write_bytes((folder / "colour.jpeg").read_bytes()[:-2])
    transparent_bmp = np.zeros((SIDE, SIDE, 4), np.uint8)
    (folder / "zero-alpha.bmp").write_bytes(bmp(transparent_bmp.tobytes(), SIDE, SIDE))
    for name, image in (("colour.heic", colour), ("transparent.heic", transparent)):
        pillow_heif.from_pillow(image).save(folder / name, quality=50)
    return len(list(folder.iterdir()))


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads the peak from Linux's /proc")
def test_no_image_takes_more_memory_than_the_bound(tmp_path: Path) -> None:
    images = write_images(tmp_path)
    command = [sys.executable, "-c", CODE, str(tmp_path)]
    done = subprocess.run(command, env=os.environ, capture_output=True, text=True, check=True)
    lines = [line.split() for line in done.stdout.splitlines()]
    assert len(lines) == 5 * images, done.stderr
    for name, shape, normalize, taken, bound in lines:
        assert int(taken) <= int(bound), (name, shape, normalize)
        assert int(bound) <= 4 * int(taken) + (12 << 20), (name, shape, normalize)  # the bound is not far too large
