from __future__ import annotations

import io
from itertools import combinations

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from sample_images import content_hashes, photo_crops

from trainer.data.perceptual_hash import (
    BANDS,
    HASH_WORDS,
    MAX_DIFFERENT_BITS,
    MAX_NEIGHBOURS,
    MIN_CONTRAST,
    SIGN_WORDS,
    group_near_duplicates,
    mean_colours,
    perceptual_hashes,
)


def hash_of(image: Image.Image) -> NDArray[np.uint64]:
    return perceptual_hashes(np.asarray(image.convert("RGB"))[None])


def different_bits(a: NDArray[np.uint64], b: NDArray[np.uint64]) -> int:
    return int(np.bitwise_count((a ^ b)[..., :SIGN_WORDS]).sum())


def test_an_image_that_is_saved_again_has_a_near_hash() -> None:
    for original in photo_crops():
        jpeg = io.BytesIO()
        original.save(jpeg, "JPEG", quality=75)
        again = (Image.open(jpeg), original.resize((64, 64)), original.point(lambda value: round(value * 0.9)))
        for other in again:
            assert different_bits(hash_of(original), hash_of(other)) <= MAX_DIFFERENT_BITS


def test_different_images_have_distant_hashes() -> None:
    hashes = [hash_of(photo) for photo in photo_crops()]
    assert min(different_bits(a, b) for a, b in combinations(hashes, 2)) > 3 * MAX_DIFFERENT_BITS


@pytest.mark.parametrize("shape", [(1, 1), (8, 8), (28, 28), (20, 300)])
@pytest.mark.parametrize("channels", [1, 3])
def test_images_of_any_size_have_hashes(shape: tuple[int, int], channels: int) -> None:
    images = np.random.default_rng(0).integers(0, 256, (5, *shape, channels), np.uint8)
    images[3], images[4] = 7, 200
    hashes = perceptual_hashes(images)
    assert hashes.shape == (5, HASH_WORDS)
    assert hashes.dtype == np.uint64
    assert different_bits(hashes[3], hashes[4]) == 0
    assert mean_colours(hashes)[3:].tolist() == [[7, 7, 7], [200, 200, 200]]
    np.testing.assert_array_equal(hashes, np.concatenate([perceptual_hashes(image[None]) for image in images]))


def random_hashes(count: int) -> NDArray[np.uint64]:
    """Hashes of images with contrast and one mean colour."""
    hashes = np.random.default_rng(0).integers(0, 2**64, (count, HASH_WORDS), np.uint64)
    hashes[:, SIGN_WORDS] = np.array([9, 9, 9, MIN_CONTRAST, 0, 0, 0, 0], np.uint8).view(np.uint64)[0]
    return hashes


def test_equal_bytes_and_near_hashes_make_groups_and_groups_are_transitive() -> None:
    hashes = random_hashes(6)
    hashes[1:4] = hashes[0]
    hashes[1, 0] ^= np.uint64(2**MAX_DIFFERENT_BITS - 1)
    hashes[2, 0] ^= np.uint64(2 ** (2 * MAX_DIFFERENT_BITS) - 1)
    hashes[3, 3] ^= np.uint64(2 ** (MAX_DIFFERENT_BITS + 1) - 1)
    contents = content_hashes(6)
    contents[5] = contents[4]
    groups = group_near_duplicates(contents, hashes).tolist()
    assert groups[0] == groups[1] == groups[2]
    assert groups[4] == groups[5]
    assert len(set(groups)) == 3


def test_groups_equal_those_of_comparing_every_pair() -> None:
    rng = np.random.default_rng(1)
    hashes = np.repeat(random_hashes(60), 5, axis=0)
    bits = np.unpackbits(hashes.view(np.uint8), axis=1)
    for row in bits:
        row[rng.permutation(256)[: rng.integers(0, 16)]] ^= 1
    hashes = np.packbits(bits, axis=1).view(np.uint64)
    groups = group_near_duplicates(content_hashes(300), hashes)
    signs = hashes[:, :SIGN_WORDS]
    near = np.bitwise_count(signs[:, None] ^ signs[None]).sum(axis=2) <= MAX_DIFFERENT_BITS
    reached = near
    for _ in range(8):
        reached = (reached.astype(np.int32) @ near.astype(np.int32)) > 0
    np.testing.assert_array_equal(groups[:, None] == groups[None], reached)
    assert 60 < len(np.unique(groups)) < 300


def test_blank_images_and_images_of_another_colour_are_no_near_duplicates() -> None:
    noise = np.random.default_rng(0).integers(0, 160, (32, 32, 3), np.uint8)
    images = [
        np.full_like(noise, 7),
        np.full_like(noise, 8),
        noise,
        np.add(noise, [20, 0, 0]),
        np.add(noise, [2, 1, 0]),
    ]
    groups = group_near_duplicates(content_hashes(5), perceptual_hashes(np.array(images, np.uint8))).tolist()
    assert groups[2] == groups[4]
    assert len(set(groups)) == 4


def test_images_with_much_in_common_are_compared_in_linear_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three bands are the same for all images: comparing every pair would be 150 million comparisons."""
    hashes = random_hashes(10_000)
    hashes[:, 0] &= np.uint64(0xFFFF_0000_0000_0000)
    contents = np.arange(len(hashes), dtype=np.uint64)
    count, compared = np.bitwise_count, 0

    def counting(bits: NDArray[np.uint64]) -> NDArray[np.uint8]:
        nonlocal compared
        compared += len(bits)
        return count(bits)

    monkeypatch.setattr(np, "bitwise_count", counting)
    groups = group_near_duplicates(contents, hashes)
    assert compared < BANDS * MAX_NEIGHBOURS * len(hashes) / 4
    assert len(np.unique(groups)) == len(hashes)
