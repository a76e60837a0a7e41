from __future__ import annotations

import io
from itertools import combinations

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from sample_images import photos

from trainer.data.splits import (
    BANDS,
    LOOK_WORDS,
    MAX_DIFFERENT_BITS,
    MAX_NEIGHBOURS,
    MIN_CONTRAST,
    SIGN_WORDS,
    TEST,
    TRAIN,
    VAL,
    content_hash,
    divide,
    find_twins,
    look_hashes,
)

BOTH = ("val", "test")


def contents(count: int, start: int = 0) -> NDArray[np.uint64]:
    return np.array([content_hash(b"%d" % number) for number in range(start, start + count)], np.uint64)


def alone(count: int) -> NDArray[np.int64]:
    """Each picture is a group of its own."""
    return np.arange(count)


def look(image: Image.Image) -> NDArray[np.uint64]:
    return look_hashes(np.asarray(image.convert("RGB"))[None])


def different_bits(a: NDArray[np.uint64], b: NDArray[np.uint64]) -> int:
    return int(np.bitwise_count((a ^ b)[..., :SIGN_WORDS]).sum())


# --- looks


def test_a_picture_that_is_saved_again_looks_the_same() -> None:
    for original in photos():
        jpeg = io.BytesIO()
        original.save(jpeg, "JPEG", quality=75)
        again = (Image.open(jpeg), original.resize((64, 64)), original.point(lambda value: round(value * 0.9)))
        for other in again:
            assert different_bits(look(original), look(other)) <= MAX_DIFFERENT_BITS


def test_other_pictures_look_different() -> None:
    looks = [look(photo) for photo in photos()]
    assert min(different_bits(a, b) for a, b in combinations(looks, 2)) > 3 * MAX_DIFFERENT_BITS


@pytest.mark.parametrize("shape", [(1, 1), (8, 8), (28, 28), (20, 300)])
@pytest.mark.parametrize("channels", [1, 3])
def test_any_size_has_a_look(shape: tuple[int, int], channels: int) -> None:
    images = np.random.default_rng(0).integers(0, 256, (5, *shape, channels), np.uint8)
    images[3], images[4] = 7, 200
    looks = look_hashes(images)
    assert looks.shape == (5, LOOK_WORDS)
    assert looks.dtype == np.uint64
    assert different_bits(looks[3], looks[4]) == 0
    assert looks[3, SIGN_WORDS] != looks[4, SIGN_WORDS]
    np.testing.assert_array_equal(looks, np.concatenate([look_hashes(image[None]) for image in images]))


# --- twins


def random_looks(count: int) -> NDArray[np.uint64]:
    """Of one tint, with contrast."""
    looks = np.random.default_rng(0).integers(0, 2**64, (count, LOOK_WORDS), np.uint64)
    looks[:, SIGN_WORDS] = np.array([9, 9, 9, MIN_CONTRAST, 0, 0, 0, 0], np.uint8).view(np.uint64)[0]
    return looks


def test_equal_bytes_or_near_looks_make_twins_and_so_do_twins_of_twins() -> None:
    looks = random_looks(6)
    looks[1:4] = looks[0]
    looks[1, 0] ^= np.uint64(2**MAX_DIFFERENT_BITS - 1)
    looks[2, 0] ^= np.uint64(2 ** (2 * MAX_DIFFERENT_BITS) - 1)
    looks[3, 3] ^= np.uint64(2 ** (MAX_DIFFERENT_BITS + 1) - 1)
    hashes = contents(6)
    hashes[5] = hashes[4]
    groups = find_twins(hashes, looks).tolist()
    assert groups[0] == groups[1] == groups[2]
    assert groups[4] == groups[5]
    assert len(set(groups)) == 3


def test_twins_are_those_that_comparing_all_with_all_finds() -> None:
    rng = np.random.default_rng(1)
    looks = np.repeat(random_looks(60), 5, axis=0)
    bits = np.unpackbits(looks.view(np.uint8), axis=1)
    for row in bits:
        row[rng.permutation(256)[: rng.integers(0, 16)]] ^= 1
    looks = np.packbits(bits, axis=1).view(np.uint64)
    groups = find_twins(contents(300), looks)
    signs = looks[:, :SIGN_WORDS]
    near = np.bitwise_count(signs[:, None] ^ signs[None]).sum(axis=2) <= MAX_DIFFERENT_BITS
    reached = near
    for _ in range(8):
        reached = (reached.astype(np.int32) @ near.astype(np.int32)) > 0
    np.testing.assert_array_equal(groups[:, None] == groups[None], reached)
    assert 60 < len(np.unique(groups)) < 300


def test_blank_pictures_and_those_of_another_colour_are_no_twins() -> None:
    noise = np.random.default_rng(0).integers(0, 160, (32, 32, 3), np.uint8)
    pictures = [
        np.full_like(noise, 7),
        np.full_like(noise, 8),
        noise,
        np.add(noise, [20, 0, 0]),
        np.add(noise, [2, 1, 0]),
    ]
    groups = find_twins(contents(5), look_hashes(np.array(pictures, np.uint8))).tolist()
    assert groups[2] == groups[4]
    assert len(set(groups)) == 4


def test_no_pictures_and_one() -> None:
    for count in (0, 1):
        groups = find_twins(contents(count), np.zeros((count, LOOK_WORDS), np.uint64))
        assert groups.tolist() == [0] * count
        assert divide(contents(count), groups, np.zeros(count, np.int32), BOTH).tolist() == [TRAIN] * count


def test_pictures_that_share_much_are_compared_in_proportion(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three bands are the same for all: comparing each with each would be 150 million pairs."""
    looks = random_looks(10_000)
    looks[:, 0] &= np.uint64(0xFFFF_0000_0000_0000)
    hashes = np.arange(len(looks), dtype=np.uint64)
    count, compared = np.bitwise_count, 0

    def counting(bits: NDArray[np.uint64]) -> NDArray[np.uint8]:
        nonlocal compared
        compared += len(bits)
        return count(bits)

    monkeypatch.setattr(np, "bitwise_count", counting)
    groups = find_twins(hashes, looks)
    assert compared < BANDS * MAX_NEIGHBOURS * len(looks) / 4
    assert len(np.unique(groups)) == len(looks)


# --- splits


def test_a_tenth_of_every_class_is_held_out_for_each() -> None:
    labels = np.repeat(np.arange(4), [10_000, 5_000, 1_000, 300]).astype(np.int32)
    split = divide(contents(len(labels)), alone(len(labels)), labels, BOTH)
    for label, tolerance in ((0, 0.01), (1, 0.015), (2, 0.03), (3, 0.06)):
        shares = np.bincount(split[labels == label], minlength=3) / (labels == label).sum()
        np.testing.assert_allclose(shares, [0.8, 0.1, 0.1], atol=tolerance)


def test_a_split_follows_from_the_content_alone() -> None:
    hashes, labels = contents(2000), (np.arange(2000) % 5).astype(np.int32)
    split = divide(hashes, alone(2000), labels, BOTH)
    order = np.random.default_rng(0).permutation(2000)
    np.testing.assert_array_equal(divide(hashes[order], alone(2000), labels[order], BOTH), split[order])
    # A folder grows, and a half of it goes.
    more = np.concatenate([hashes, contents(3000, start=2000)])
    grown = divide(more, alone(5000), (np.arange(5000) % 5).astype(np.int32), BOTH)
    np.testing.assert_array_equal(grown[:2000], split)
    np.testing.assert_array_equal(divide(hashes[1000:], alone(1000), labels[1000:], BOTH), split[1000:])
    # Where test is there already, validation stays what it was.
    only = divide(hashes, alone(2000), labels, ("val",))
    np.testing.assert_array_equal(only == VAL, split == VAL)
    assert (only[split == TEST] == TRAIN).all()


def test_twins_go_together_and_are_held_out_no_more_often() -> None:
    groups = np.repeat(np.arange(4000), 5)
    split = divide(contents(20_000), groups, np.zeros(20_000, np.int32), BOTH).reshape(4000, 5)
    assert (split == split[:, :1]).all()
    np.testing.assert_allclose(np.bincount(split[:, 0]) / 4000, [0.8, 0.1, 0.1], atol=0.02)


def test_a_new_twin_moves_none_but_its_own() -> None:
    hashes = contents(1001)
    labels = np.zeros(1001, np.int32)
    split = divide(hashes[:1000], alone(1000), labels[:1000], BOTH)
    groups = alone(1001)
    groups[1000] = 17
    grown = divide(hashes, groups, labels, BOTH)
    assert np.delete(grown[:1000], 17).tolist() == np.delete(split, 17).tolist()
    assert grown[17] == grown[1000]


@pytest.mark.parametrize("seed", range(20))
def test_small_classes_have_every_split_that_they_can(seed: int) -> None:
    sizes = np.array([1, 2, 3, 4, 8, 12])
    labels = np.repeat(np.arange(6), sizes).astype(np.int32)
    split = divide(contents(len(labels), start=1000 * seed), alone(len(labels)), labels, BOTH)
    for label, size in enumerate(sizes):
        train, val, test = np.bincount(split[labels == label], minlength=3)
        assert train >= 1
        assert val >= (size > 1)
        assert test >= (size > 2)


def test_a_class_of_pictures_that_are_alike_by_nature_is_divided_all_the_same() -> None:
    labels = np.repeat([0, 1, 2], 40).astype(np.int32)
    groups = np.concatenate([np.zeros(40, np.int64), np.arange(1, 81)])
    groups[45] = 0  # the other class's picture that looks the same
    hashes = contents(120)
    hashes[1] = hashes[0]
    split = divide(hashes, groups, labels, BOTH)
    assert set(split[labels == 0].tolist()) == {TRAIN, VAL, TEST}
    assert split[0] == split[1]


@pytest.mark.parametrize("seed", range(20))
def test_every_class_keeps_a_training_picture_where_groups_span_classes(seed: int) -> None:
    rng = np.random.default_rng(seed)
    labels = np.sort(rng.integers(0, 8, 60)).astype(np.int32)
    groups = rng.integers(0, 25, 60)
    split = divide(contents(60, start=1000 * seed), groups, labels, BOTH)
    assert all((split[labels == label] == TRAIN).any() for label in np.unique(labels))
    assert all(len(np.unique(split[groups == group])) == 1 for group in np.unique(groups))
    assert {VAL, TEST} <= set(split.tolist())
