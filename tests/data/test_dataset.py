from __future__ import annotations

import logging
import shutil
from pathlib import Path

import numpy as np
import pytest
from sample_images import image_folder, photo_crops

from trainer.data import Dataset, load, load_undivided
from trainer.data.sources.spec import open_source
from trainer.errors import InputError
from trainer.images.decode import decode
from trainer.images.pixels import PixelSpec

MNIST = Path(__file__).parents[2] / "../shared/data/tfds"


def parts(dataset: Dataset) -> tuple[set[int], set[int], set[int]]:
    train, val, test = (set(split.indices.tolist()) for split in (dataset.train, dataset.val, dataset.test))
    return train, val, test


def test_digits_are_divided_disjointly_and_stratified() -> None:
    digits = load("builtin:digits")
    train, val, test = parts(digits)
    assert (len(train), len(val), len(test)) == (1465, 161, 171)
    assert len(train | val | test) == 1797
    for split in (digits.val, digits.test):
        shares = split.counts / (digits.train.counts + digits.val.counts + digits.test.counts)
        assert np.all(np.abs(shares - 0.1) < 0.06)  # random, by content hash
        assert split.counts.sum() == len(split)
    assert digits.class_names == tuple("0123456789")
    assert digits.pixels == PixelSpec(8, 8, 1)
    assert digits.has_character_classes
    assert digits.name == "digits"
    assert digits.spec == "builtin:digits"


def test_the_seed_affects_the_limit_and_not_the_splits() -> None:
    first, same, other = (load("builtin:digits", limit=50, seed=seed) for seed in (0, 0, 1))
    assert parts(first) == parts(same)
    assert parts(first)[1:] == parts(other)[1:]
    assert parts(first)[0] != parts(other)[0]
    assert first.fingerprint == same.fingerprint == other.fingerprint


def split_of(dataset: Dataset) -> dict[str, str]:
    """The file's name → its split."""
    splits = {"train": dataset.train, "val": dataset.val, "test": dataset.test}
    return {split.name(index): name for name, split in splits.items() for index in range(len(split))}


def test_a_folder_may_grow_and_no_image_changes_its_split(tmp_path: Path) -> None:
    before = split_of(load(str(image_folder(tmp_path, {"a": 60, "b": 60}, size=(16, 16)))))
    image_folder(tmp_path, {"a": 90, "b": 61}, size=(16, 16))
    after = split_of(load(str(tmp_path), seed=1))
    assert len(after) == 151
    assert {name: after[name] for name in before} == before
    assert set(after.values()) == {"train", "val", "test"}


def test_near_duplicates_are_in_one_split(tmp_path: Path) -> None:
    for number, image in enumerate(photo_crops()):
        folder = tmp_path / "ab"[number % 2]
        folder.mkdir(exist_ok=True)
        image.save(folder / f"{number}.png")
        image.save(folder / f"{number}-again.jpg", quality=80)
        image.resize((120, 120)).save(folder / f"{number}-small.png")
    splits = split_of(load(str(tmp_path), image_size=(96, 96)))
    for number in range(16):
        stem = f"{'ab'[number % 2]}/{number}"
        assert splits[f"{stem}.png"] == splits[f"{stem}-again.jpg"] == splits[f"{stem}-small.png"]
    assert set(splits.values()) == {"train", "val", "test"}


def test_near_duplicates_across_given_splits_are_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    image_folder(tmp_path, {"train/a": 20, "train/b": 20, "val/a": 3, "test/b": 2}, size=(16, 16))
    load(str(tmp_path))
    assert "in train, too" not in caplog.text
    shutil.copy(tmp_path / "train/a/007.png", tmp_path / "test/b/x.png")
    load(str(tmp_path))
    assert (
        "1 of 3 test images are in train, too, or look the same as one there (such as test/b/x.png and "
        "train/a/007.png): by so many, figures on test may be too good" in caplog.text
    )


def test_near_duplicates_in_val_and_test_are_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    image_folder(tmp_path, {"train/a": 9, "train/b": 9, "val/a": 3, "val/b": 2, "test/a": 2, "test/b": 2})
    shutil.copy(tmp_path / "val/b/001.png", tmp_path / "test/b/x.png")
    load(str(tmp_path))
    assert (
        "1 of 5 test images are in val, too, or look the same as one there (such as test/b/x.png and val/b/001.png): "
        "by so many, figures on test may be too good" in caplog.text
    )
    assert "in train, too" not in caplog.text


def test_near_duplicates_in_two_classes_are_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    image_folder(tmp_path, {"a": 20, "b": 20})
    shutil.copy(tmp_path / "a/007.png", tmp_path / "a/again.png")
    load(str(tmp_path))
    assert "another class" not in caplog.text
    shutil.copy(tmp_path / "a/007.png", tmp_path / "b/x.png")
    load(str(tmp_path))
    (line,) = [record for record in caplog.records if "another class" in record.message]
    assert line.levelname == "WARNING"
    assert line.message == (
        "3 of 42 images look like one of another class (such as a/007.png and b/x.png): "
        "keep each in the right class only"
    )


def test_limit_caps_every_class_of_train_alone() -> None:
    full, few = load("builtin:digits"), load("builtin:digits", limit=50)
    assert parts(few)[1:] == parts(full)[1:]
    assert parts(few)[0] < parts(full)[0]
    assert len(few.train) == 50
    assert set(few.train.counts.tolist()) == {5}
    assert len(load("builtin:digits", limit=3).train) == 3
    assert parts(load("builtin:digits", limit=10_000)) == parts(full)


def test_a_split_reads_its_own_images() -> None:
    digits = load("builtin:digits")
    whole = digits.val.read(np.arange(len(digits.val)))
    np.testing.assert_array_equal(whole, digits.val.cache.read(digits.val.indices))
    batches = list(digits.val.batches(64))
    assert [len(batch) for batch in batches] == [64, 64, 33]
    np.testing.assert_array_equal(np.concatenate(batches), whole)
    np.testing.assert_array_equal(digits.val.labels, digits.val.cache.labels[digits.val.indices])
    assert digits.val.labels.dtype == np.int32


def test_rare_classes_reach_every_split_they_can(tmp_path: Path) -> None:
    dataset = load(str(image_folder(tmp_path, {"a": 40, "one": 1, "three": 3, "two": 2}, size=(8, 8))))
    # One image of each class that has more than one.
    assert dataset.class_names == ("a", "one", "three", "two")
    assert dataset.train.counts.tolist()[1:] == [1, 1, 1]
    assert dataset.val.counts.tolist()[1:] == [0, 1, 1]
    assert dataset.test.counts.tolist()[1:] == [0, 1, 0]
    assert len(dataset.val) == 11
    assert sum(map(len, parts(dataset))) == 46


def test_given_splits_are_kept(tmp_path: Path) -> None:
    image_folder(tmp_path, {"train/a": 20, "train/b": 20, "val/a": 3, "test/b": 2}, size=(8, 8))
    dataset = load(str(tmp_path))
    assert [len(part) for part in parts(dataset)] == [40, 3, 2]
    assert dataset.val.counts.tolist() == [3, 0]
    assert dataset.test.counts.tolist() == [0, 2]


@pytest.mark.parametrize(("present", "missing"), [("test", "val"), ("val", "test")])
def test_one_missing_split_takes_a_tenth_of_train(tmp_path: Path, present: str, missing: str) -> None:
    image_folder(tmp_path, {"train/a": 20, "train/b": 20, f"{present}/a": 3}, size=(8, 8))
    dataset = load(str(tmp_path))
    assert 30 <= len(dataset.train) <= 39
    assert len(dataset.train) + len(getattr(dataset, missing)) == 40
    assert getattr(dataset, present).counts.tolist() == [3, 0]
    assert min(getattr(dataset, missing).counts) >= 1


def test_too_few_images_to_divide_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="has 2 images, too few to set some aside"):
        load(str(image_folder(tmp_path, {"a": 1, "b": 1})))


def test_load_undivided_has_all_images_from_the_same_cache(tmp_path: Path) -> None:
    image_folder(tmp_path, {"train/a": 5, "train/b": 5, "val/a": 3, "test/b": 2}, size=(8, 8))
    divided = load(str(tmp_path))
    everything = load_undivided(open_source(str(tmp_path), for_training=False), divided.pixels)
    assert everything.cache.fingerprint == divided.train.cache.fingerprint
    assert everything.counts.tolist() == [8, 7]
    assert (
        everything.content_hashes[8:10].tolist()
        != divided.test.content_hashes.tolist()
        == everything.content_hashes[13:].tolist()
    )


def test_name_normalization_and_mirroring_depend_on_the_data(tmp_path: Path) -> None:
    photos = load(str(image_folder(tmp_path / "My Photos", {"Ä ö.1": 5, "日本": 5}, size=(8, 8))))
    assert photos.name == "my-photos"
    assert photos.class_names == ("Ä ö.1", "日本")
    assert photos.pixels.normalize == "none"
    assert not photos.has_character_classes
    letters = load(str(image_folder(tmp_path / "letters", {"A": 5, "B": 5}, size=(8, 8))), normalize="mnist")
    assert letters.has_character_classes
    assert letters.pixels == PixelSpec(28, 28, 1, normalize="mnist")
    with pytest.raises(InputError, match="28x28"):
        load("builtin:digits", image_size=(32, 32), normalize="mnist")


def test_padded_images_are_those_that_a_server_decodes(tmp_path: Path) -> None:
    folder = image_folder(tmp_path, {"a": 9, "b": 9}, size=(30, 12))
    stretched, padded = (load(str(folder), image_size=(64, 64), resize=rule) for rule in ("stretch", "pad"))
    assert padded.pixels == PixelSpec(64, 64, 3, "pad")
    decoded = [decode((folder / padded.train.name(row)).read_bytes(), padded.pixels) for row in range(3)]
    np.testing.assert_array_equal(padded.train.read(np.arange(3)), decoded)
    assert padded.fingerprint != stretched.fingerprint
    again = load_undivided(open_source(str(folder)), padded.pixels)  # from the cache
    assert again.cache.fingerprint == padded.fingerprint
    assert load(str(folder), image_size=(64, 64)).fingerprint == stretched.fingerprint
    with pytest.raises(InputError, match="--resize pad: --normalize mnist, the default"):
        load(str(folder), resize="pad", normalize="mnist")


def test_the_fingerprint_tells_data_and_pixels_apart(tmp_path: Path) -> None:
    first = image_folder(tmp_path / "first", {"a": 5, "b": 5}, size=(8, 8))
    copy = image_folder(tmp_path / "copy", {"a": 5, "b": 5}, size=(8, 8))
    renamed = image_folder(tmp_path / "renamed", {"a": 5, "c": 5}, size=(8, 8))
    assert load(str(first)).fingerprint == load(str(copy)).fingerprint
    others = {load(str(renamed)).fingerprint, load(str(first), image_size=(9, 9)).fingerprint}
    assert len({load(str(first)).fingerprint, *others}) == 3


@pytest.mark.skipif(not MNIST.exists(), reason="needs the shared TFDS MNIST beside the checkout")
@pytest.mark.slow
def test_real_mnist() -> None:
    mnist = load("tfds:mnist", data_dir=MNIST)
    assert (len(mnist.train), len(mnist.val), len(mnist.test)) == (54_055, 5_945, 10_000)
    assert mnist.class_names == tuple("0123456789")
    assert mnist.pixels == PixelSpec(28, 28, 1, normalize="mnist")
    assert (mnist.name, mnist.spec, mnist.has_character_classes) == ("mnist", "tfds:mnist:3.0.1", True)
    assert mnist.test.labels[:5].tolist() == [2, 0, 4, 8, 7]
    assert not mnist.rejected


@pytest.mark.parametrize(("splits", "held_out"), [(("train",), ("val", "test")), (("train", "val"), ("test",))])
def test_the_splits_that_are_taken_from_train_are_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, splits: tuple[str, ...], held_out: tuple[str, ...]
) -> None:
    caplog.set_level(logging.INFO, "trainer")
    folder = image_folder(tmp_path, {f"{split}/{name}": 40 for split in splits for name in ("cat", "dog")})
    dataset = load(str(folder))
    assert dataset.held_out == held_out
    for name in held_out:
        taken = len(getattr(dataset, name))
        assert f"has no {name} images: {taken} of its 80 train images are taken for it" in caplog.text
    assert caplog.text.count("are taken for it") == len(held_out)


def test_images_that_were_trained_on_stay_training_images(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    images = {"train/a": 9, "train/b": 9, "val/a": 3, "val/b": 3, "test/b": 3}
    given = image_folder(tmp_path / "given", images, size=(8, 8))
    before = load(str(given))
    trained = np.concatenate([before.train.content_hashes[:2], before.val.content_hashes[:2]])
    with caplog.at_level(logging.INFO, "trainer"):
        after = load(str(given), trained=trained)
    assert set(after.train.content_hashes) == set(before.train.content_hashes) | set(trained)
    assert after.val.content_hashes.tolist() == before.val.content_hashes[2:].tolist()
    assert after.test.content_hashes.tolist() == before.test.content_hashes.tolist()
    assert "2 of 6 val images are training images of the version before" in caplog.text
    with pytest.raises(InputError, match="--start-from: the test images are all training images"):
        load(str(given), trained=before.test.content_hashes)


def test_near_duplicates_of_trained_images_are_moved_only_where_the_split_is_made(tmp_path: Path) -> None:
    for index, crop in enumerate(photo_crops()):
        for name in ("made", "given/train"):
            (tmp_path / name / "ab"[index % 2]).mkdir(parents=True, exist_ok=True)
            crop.save(tmp_path / name / "ab"[index % 2] / f"{index}.png")
            crop.save(tmp_path / name / "ab"[index % 2] / f"{index}.jpg", quality=90)
    for name in ("val", "test"):
        (tmp_path / "given" / name / "a").mkdir(parents=True)
        for index in (0, 2) if name == "val" else (4, 6):
            shutil.move(tmp_path / f"given/train/a/{index}.png", tmp_path / "given" / name / "a" / f"{index}.png")
    made, given = load(str(tmp_path / "made")), load(str(tmp_path / "given"))
    trained = made.test.content_hashes[:1]
    after = load(str(tmp_path / "made"), trained=trained)
    assert len(after.test) == len(made.test) - 2  # it, and the same crop in the other format
    assert len(after.train) == len(made.train) + 2
    after = load(str(tmp_path / "given"), trained=given.train.content_hashes)
    assert after.test.content_hashes.tolist() == given.test.content_hashes.tolist()
