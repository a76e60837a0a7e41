from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from trainer.images.decode import decode
from trainer.images.mnist import normalize_mnist
from trainer.images.pixels import PixelSpec

MNIST = Path(__file__).parents[2] / "../shared/data/tfds/mnist/3.0.1"
DIGIT = PixelSpec(28, 28, 1, normalize="mnist")


def draw_seven(side: int, ink: int, paper: int, offset: tuple[float, float], scale: float) -> NDArray[np.uint8]:
    image = Image.new("L", (side, side), paper)
    points = [(offset[0] + scale * x, offset[1] + scale * y) for x, y in ((0, 0), (6, 0), (2, 10))]
    ImageDraw.Draw(image).line(points, fill=ink, width=max(1, round(scale)), joint="curve")
    return np.asarray(image)


def ink_box(image: NDArray[np.uint8]) -> tuple[int, int]:
    rows, columns = np.flatnonzero(image.any(1)), np.flatnonzero(image.any(0))
    return int(rows[-1] - rows[0] + 1), int(columns[-1] - columns[0] + 1)


def test_a_drawn_digit_gets_the_size_position_and_polarity_of_mnist() -> None:
    reference = normalize_mnist(draw_seven(200, 255, 0, (70, 50), 8))
    assert ink_box(reference)[0] in (19, 20)
    mass = reference.astype(float)
    centre = [float((mass.sum(axis) * np.arange(28)).sum() / mass.sum()) for axis in (1, 0)]
    np.testing.assert_allclose(centre, 14, atol=0.55)
    assert reference.max() == 255
    others = {
        "dark on light": draw_seven(200, 0, 255, (70, 50), 8),
        "in a corner": draw_seven(200, 255, 0, (6, 6), 8),
        "gray on gray": draw_seven(200, 60, 180, (70, 50), 8),
        "larger": np.kron(draw_seven(200, 0, 255, (70, 50), 8), np.ones((9, 9), np.uint8)),
    }
    for name, drawn in others.items():
        difference = np.abs(normalize_mnist(drawn).astype(int) - reference).mean()
        assert difference < 8, name


def test_an_image_in_the_form_of_mnist_is_unchanged() -> None:
    digit = normalize_mnist(draw_seven(200, 0, 255, (70, 50), 8))
    assert normalize_mnist(digit) is digit
    png = io.BytesIO()
    Image.fromarray(digit).save(png, "PNG")
    np.testing.assert_array_equal(decode(png.getvalue(), DIGIT)[:, :, 0], digit)


def test_specks_and_noise_do_not_change_the_crop() -> None:
    clean = draw_seven(200, 30, 220, (70, 50), 8)
    rng = np.random.default_rng(0)
    noisy = np.clip(clean + rng.normal(0, 10, clean.shape), 0, 255).astype(np.uint8)
    noisy[5, 5] = noisy[190, 190] = 0
    difference = np.abs(normalize_mnist(noisy).astype(int) - normalize_mnist(clean)).mean()
    assert difference < 5


@pytest.mark.parametrize("value", [0, 128, 255])
@pytest.mark.parametrize("shape", [(28, 28), (200, 300), (1, 1), (1, 4000), (3000, 2)])
def test_a_blank_page_becomes_all_zeros(value: int, shape: tuple[int, int]) -> None:
    assert not normalize_mnist(np.full(shape, value, np.uint8)).any()
    faint = np.full(shape, value, np.uint8)
    faint[0, 0] ^= 7
    assert not normalize_mnist(faint).any()


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (28, 28), (3, 500), (700, 1400)])
def test_any_image_gives_28_by_28(shape: tuple[int, int]) -> None:
    noise = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    assert normalize_mnist(noise).shape == (28, 28)


def mnist_pngs(split: str) -> Iterator[bytes]:
    data = (MNIST / f"mnist-{split}.tfrecord-00000-of-00001").read_bytes()
    start = 0
    while (start := data.find(b"\x89PNG", start)) >= 0:
        end = data.index(b"IEND", start) + 8
        yield data[start:end]
        start = end


@pytest.mark.skipif(not MNIST.exists(), reason="needs MNIST beside the checkout (../shared/data/tfds/mnist)")
def test_real_mnist_is_unchanged() -> None:
    plain = PixelSpec(28, 28, 1)
    count = 0
    for data in mnist_pngs("test"):
        pixels = decode(data, plain)[:, :, 0]
        assert normalize_mnist(pixels) is pixels
        count += 1
    assert count == 10_000
