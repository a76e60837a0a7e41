from __future__ import annotations

import logging
import os
from pathlib import Path

import pytest
from sample_images import image_folder, save_image

from trainer.data.sources.folder import FolderSource
from trainer.errors import InputError


def found(source: FolderSource) -> list[tuple[str, str, str]]:
    return [(example.split, source.class_names[example.label], example.name) for example in source.examples()]


def test_classes_are_sorted_by_code_point_and_keep_their_names(tmp_path: Path) -> None:
    names = ["zebra", "Äpfel & Öl", "a.b.c", "Big cat", "日本", "a b"]
    source = FolderSource(image_folder(tmp_path, dict.fromkeys(names, 1)))
    assert source.class_names == ("Big cat", "a b", "a.b.c", "zebra", "Äpfel & Öl", "日本")
    assert len(source) == 6


def test_nested_folders_belong_to_their_class(tmp_path: Path) -> None:
    image_folder(tmp_path, {"cat": 1, "cat/kittens/small": 1, "dog": 1})
    assert found(FolderSource(tmp_path)) == [
        ("train", "cat", "cat/000.png"),
        ("train", "cat", "cat/kittens/small/000.png"),
        ("train", "dog", "dog/000.png"),
    ]


def test_split_folders(tmp_path: Path) -> None:
    image_folder(tmp_path, {"train/cat": 2, "train/dog": 1, "validation/dog": 1, "test/cat": 1, "test/dog": 0})
    (tmp_path / "test" / "dog").mkdir()
    assert [(split, name) for split, name, _ in found(FolderSource(tmp_path))] == [
        ("train", "cat"),
        ("train", "cat"),
        ("train", "dog"),
        ("val", "dog"),
        ("test", "cat"),
    ]


@pytest.mark.parametrize(
    "names",
    [
        ("Train", "Valid", "TEST"),
        ("Training", "validation", "Testing"),
        ("train", "dev", "eval"),
        ("TRAIN", "Dev", "test"),
    ],
)
def test_split_folders_in_any_case_and_by_other_names(tmp_path: Path, names: tuple[str, str, str]) -> None:
    image_folder(tmp_path, {f"{name}/{label}": 1 for name in names for label in ("cat", "dog")})
    source = FolderSource(tmp_path)
    assert source.class_names == ("cat", "dog")
    assert [split for split, _, _ in found(source)] == ["train", "train", "val", "val", "test", "test"]


def test_several_folders_of_one_split_are_put_together(tmp_path: Path) -> None:
    image_folder(tmp_path, {"train/cat": 1, "train/dog": 1, "training/cat": 1, "test/cat": 1})
    assert [(split, name) for split, name, _ in found(FolderSource(tmp_path))] == [
        *(("train", "cat"), ("train", "cat"), ("train", "dog"), ("test", "cat"))
    ]


@pytest.mark.parametrize(
    ("counts", "words"),
    [
        ({"val/cat": 1, "val/dog": 1, "test/cat": 1, "test/dog": 1}, "has test and val but no train; add train"),
        ({"Eval/cat": 1, "Eval/dog": 1}, "has Eval but no train"),
        (
            {"fold1/cat": 1, "fold1/dog": 1, "fold2/cat": 1, "fold2/dog": 1},
            "(fold1, fold2) holds folders of the same names only (cat, dog)",
        ),
    ],
)
def test_splits_are_not_taken_for_classes(tmp_path: Path, counts: dict[str, int], words: str) -> None:
    with pytest.raises(InputError) as error:
        FolderSource(image_folder(tmp_path, counts))
    assert words in str(error.value)
    assert "\n" not in str(error.value)


def test_classes_may_hold_folders_of_other_or_single_names(tmp_path: Path) -> None:
    image_folder(tmp_path / "one", {"cat/images": 1, "dog/images": 1})
    image_folder(tmp_path / "other", {"cat/2019": 1, "cat/2020": 1, "dog/2020": 1})
    for name in ("one", "other"):
        assert FolderSource(tmp_path / name).class_names == ("cat", "dog")


def test_classes_one_level_deeper_are_counted_in_a_hint(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    image_folder(tmp_path / "shop", {"train/fruit/apple": 1, "train/fruit/kiwi": 1, "train/vegetables/leek": 1})
    assert FolderSource(tmp_path / "shop").class_names == ("fruit", "vegetables")
    (hint,) = caplog.messages
    assert "3 folders (apple, kiwi, leek) lie below the 2 classes fruit, vegetables" in hint
    assert f"such as folder:{tmp_path}/shop/train/fruit, or list the images of all in a table" in hint
    assert FolderSource(tmp_path / "shop/train/fruit").class_names == ("apple", "kiwi")
    caplog.clear()
    image_folder(tmp_path / "pets", {"cat/2019": 1, "cat/2020": 1, "dog": 1})
    FolderSource(tmp_path / "pets")
    FolderSource(tmp_path / "shop", for_training=False)
    assert caplog.messages == []


def test_data_sets_are_not_taken_for_classes(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    image_folder(tmp_path, {f"pets/{split}/{name}": 1 for split in ("train", "val") for name in ("cat", "dog")})
    image_folder(tmp_path, {f"shop/{split}/{name}": 1 for split in ("train", "test") for name in ("kiwi", "leek")})
    FolderSource(tmp_path)
    assert (
        "pets, shop hold splits, as data sets do, and are read as classes; to train on one of them: "
        f"folder:{tmp_path}/pets" in caplog.text
    )
    (tmp_path / "shop" / "test").rename(tmp_path / "shop" / "val")
    with pytest.raises(
        InputError,
        match=rf"holds data sets, .* \(pets, shop\): name one, such as folder:{tmp_path}/pets$",
    ):
        FolderSource(tmp_path)


FLAT = "are splits by their names, but their images are in no class folders: sort them as train/<class>/<image>"


@pytest.mark.parametrize(
    ("counts", "words"),
    [
        ({"train": 2, "test": 2}, f"has test and train, which {FLAT}"),
        ({"train": 2, "validation": 2}, f"has train and validation, which {FLAT}"),
        ({"train": 2, "test1": 2}, f"has test1 and train, which {FLAT}"),
        ({"Train_Images": 2, "test-images": 2, "extra": 1}, f"has Train_Images and test-images, which {FLAT}"),
        ({"val2017": 2, "test2017": 2}, f"has test2017 and val2017, which {FLAT}"),
        ({"train": 2, "test/cat": 1, "test/dog": 1}, f"has test and train, which {FLAT}"),
        (
            {"train/cat": 1, "train/dog": 1, "test1/dog": 1},
            "has 'test1', which looks like a split: put its images into test",
        ),
    ],
)
@pytest.mark.parametrize("for_training", [True, False])
def test_splits_without_class_folders_are_refused(
    tmp_path: Path, counts: dict[str, int], words: str, for_training: bool
) -> None:
    with pytest.raises(InputError) as error:
        FolderSource(image_folder(tmp_path, counts), for_training=for_training)
    assert words in str(error.value)
    assert "\n" not in str(error.value)


def test_an_unlabelled_test_folder_of_another_name_is_not_read(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "trainer"):
        source = FolderSource(image_folder(tmp_path, {"train/cat": 2, "train/dog": 1, "test1": 5}))
    assert (source.class_names, len(source)) == (("cat", "dog"), 3)
    assert "'test1' is beside train and is not read" in caplog.text


def test_a_class_called_like_a_split_is_logged_if_it_holds_folders(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "trainer"):
        source = FolderSource(image_folder(tmp_path, {"train/steam": 1, "train/diesel": 1, "bus": 2}))
    assert source.class_names == ("bus", "train")
    assert "'train' is read as a class" in caplog.text


@pytest.mark.parametrize(
    ("counts", "root", "suggested"),
    [
        ({"photos/cat": 1, "photos/dog": 1}, ".", "photos"),
        ({"zip/photos/cat": 1, "zip/photos/dog": 1}, ".", "zip/photos"),
        ({"photos/train/cat": 1, "photos/test/cat": 1}, ".", "photos"),
        ({"cat": 1, "dog": 1}, "cat", "."),
        ({"train/cat": 1, "train/dog": 1}, "train/dog", "train"),
    ],
)
@pytest.mark.parametrize("for_training", [True, False])
def test_a_folder_above_or_below_the_right_one_suggests_it(
    tmp_path: Path,
    counts: dict[str, int],
    root: str,
    suggested: str,
    for_training: bool,
    caplog: pytest.LogCaptureFixture,
) -> None:
    image_folder(tmp_path, counts)
    (tmp_path / "README.md").write_text("about")
    words = f"did you mean folder:{(tmp_path / suggested).resolve()}?"
    if not for_training and suggested != "." and root == ".":  # one class is enough
        FolderSource(tmp_path / root, for_training=False)
        assert words in caplog.text
    else:
        with pytest.raises(InputError) as error:
            FolderSource(tmp_path / root, for_training=for_training)
        assert str(error.value).endswith(words)


def test_a_single_class_folder_of_images_suggests_nothing(tmp_path: Path) -> None:
    with pytest.raises(InputError) as error:
        FolderSource(image_folder(tmp_path, {"cat": 2, "cat/small": 1}))
    assert "did you mean" not in str(error.value)


def test_train_may_be_a_class(tmp_path: Path) -> None:
    assert FolderSource(image_folder(tmp_path, {"car": 1, "train": 1, "bus": 1})).class_names == (
        "bus",
        "car",
        "train",
    )


def test_test_images_without_classes_are_ignored(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    image_folder(tmp_path, {"train/cat": 1, "train/dog": 1, "test": 3, "extra/cat": 1})
    with caplog.at_level(logging.WARNING, "trainer"):
        source = FolderSource(tmp_path)
    assert len(source) == 2
    assert source.ignored == 4  # three images and the folder `extra`
    assert "has no class folders and is not read" in caplog.text
    assert "'extra' is beside train and is not read" in caplog.text


def test_hidden_and_other_files_are_ignored_and_counted(tmp_path: Path) -> None:
    image_folder(tmp_path, {"cat": 1, "dog": 1, ".hidden": 1})
    for name in ("notes.txt", "cat/.DS_Store", "cat/.hidden.png", "dog/labels.csv", "dog/scan.tiff"):
        (tmp_path / name).write_text("no image")
    os.mkfifo(tmp_path / "dog" / "pipe.png")  # opening it would wait for ever
    source = FolderSource(tmp_path)
    assert len(source) == 2
    assert source.ignored == 7


def test_junk_of_network_disks_and_systems_is_ignored_and_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    image_folder(tmp_path, {"cat": 1, "dog": 1, "@eaDir": 1, "__MACOSX/cat": 1, "$RECYCLE.BIN": 1})
    image_folder(tmp_path, {"cat/@eaDir/000.png": 1, "dog/__MACOSX": 1})
    for name in ("cat/._000.png", "cat/Thumbs.db", "dog/desktop.ini", "dog/.DS_Store"):
        (tmp_path / name).write_bytes(b"junk")
    with caplog.at_level(logging.WARNING, "trainer"):
        source = FolderSource(tmp_path)
    assert [name for _, _, name in found(source)] == ["cat/000.png", "dog/000.png"]
    assert source.ignored == 9
    assert not caplog.text


def test_ignored_files_are_counted_by_suffix(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    image_folder(tmp_path, {"cat": 2, "dog": 1})
    for number in range(3):
        (tmp_path / "cat" / f"{number}.TIFF").write_bytes(b"II*")
    (tmp_path / "dog" / "notes.txt").write_text("words")
    (tmp_path / "dog" / "LICENSE").write_text("words")
    save_image(tmp_path / "lost.png")
    with caplog.at_level(logging.WARNING, "trainer"):
        source = FolderSource(tmp_path)
    assert source.ignored == 6
    assert caplog.messages == [
        f"{tmp_path}: left out, as they are not images that can be read: "
        "3 .tiff files, 1 file without a suffix, 1 .txt file",
        f"{tmp_path}: left out, as they are in no class folder: 1 images",
    ]


def test_a_class_without_images_names_its_files(tmp_path: Path) -> None:
    image_folder(tmp_path, {"cat": 2})
    (tmp_path / "dog").mkdir()
    (tmp_path / "dog" / "0.tif").write_bytes(b"II*")
    with pytest.raises(InputError, match=r"dog has no images \(.*\); it has 1 \.tif file; "):
        FolderSource(tmp_path)


def test_files_without_a_suffix_are_recognized_by_their_bytes(tmp_path: Path) -> None:
    image_folder(tmp_path, {"cat": 1, "dog": 1})
    for name in ("a", "IMG.0042", "photo of 3.5 m"):
        save_image(tmp_path / "cat" / name, format="PNG")
    save_image(tmp_path / "dog" / "x.png?w=640", format="PNG")
    assert len(FolderSource(tmp_path)) == 6


@pytest.mark.parametrize("suffix", ["HEIC", "heif", "hif", "avif", "JPEG"])
def test_suffixes_of_phones_are_images(tmp_path: Path, suffix: str) -> None:
    image_folder(tmp_path, {"cat": 1, "dog": 1})
    (tmp_path / "cat" / f"photo.{suffix}").write_bytes(b"the decoder looks inside")
    assert len(FolderSource(tmp_path)) == 3


def test_composed_and_decomposed_names_are_one_class(tmp_path: Path) -> None:
    composed, decomposed = "caf\u00e9", "cafe\u0301"
    image_folder(tmp_path, {f"train/{composed}": 1, "train/tea": 1, f"test/{decomposed}": 1})
    source = FolderSource(tmp_path)
    assert source.class_names == (composed, "tea")
    assert [(split, name) for split, name, _ in found(source)][-1] == ("test", composed)
    image_folder(tmp_path, {f"train/{decomposed}": 1})
    with pytest.raises(InputError) as error:
        FolderSource(tmp_path)
    assert "two folders that look alike, 'cafe<U+0301>' and 'caf<U+00E9>'" in str(error.value)


def test_links_are_followed_but_not_in_a_loop(tmp_path: Path) -> None:
    image_folder(tmp_path / "data", {"cat": 1, "dog": 1})
    image_folder(tmp_path / "elsewhere", {"more": 2})
    (tmp_path / "data" / "dog" / "more").symlink_to(tmp_path / "elsewhere" / "more")
    (tmp_path / "data" / "cat" / "loop").symlink_to(tmp_path / "data")
    (tmp_path / "data" / "cat" / "gone.png").symlink_to("nowhere")
    names = [name for _, _, name in found(FolderSource(tmp_path / "data"))]
    assert names == ["cat/000.png", "cat/gone.png", "dog/000.png", "dog/more/000.png", "dog/more/001.png"]


def test_the_fingerprint_changes_with_the_files(tmp_path: Path) -> None:
    image_folder(tmp_path, {"cat": 2, "dog": 1})
    first = FolderSource(tmp_path).fingerprint
    assert FolderSource(tmp_path).fingerprint == first
    os.utime(tmp_path / "cat" / "000.png", ns=(1, 1))
    touched = FolderSource(tmp_path).fingerprint
    (tmp_path / "cat" / "001.png").rename(tmp_path / "dog" / "001.png")
    moved = FolderSource(tmp_path).fingerprint
    assert len({first, touched, moved}) == 3


@pytest.mark.parametrize(
    ("counts", "words"),
    [
        ({}, "has no class folders where at least two are expected"),
        ({"cat": 2}, "has only one class folder, 'cat',"),
        ({"train/cat": 2, "test/cat": 1}, "has only one class folder, 'cat',"),
        ({"cat": 2, "dog": 0}, "dog has no images"),
        ({"train/cat": 1, "train/dog": 1, "val/cow": 1}, "the class 'cow' in val but not in train; train has cat, dog"),
    ],
)
def test_unusable_folders_are_refused_in_one_line(tmp_path: Path, counts: dict[str, int], words: str) -> None:
    for name in counts:
        (tmp_path / name).mkdir(parents=True)
    image_folder(tmp_path, counts)
    with pytest.raises(InputError) as error:
        FolderSource(tmp_path)
    assert words in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        ({"test/cat": 2, "test/dog": 1}, ["test cat", "test cat", "test dog"]),
        ({"Dev/cat": 1, "eval/cow": 1}, ["val cat", "test cow"]),
        ({"train/cat": 1, "test/cow": 1}, ["train cat", "test cow"]),
        ({"cat": 1, "dog": 0}, ["train cat"]),
        ({"test": 1, "dog": 1}, ["train dog", "train test"]),
        ({"train/cat": 1, "test": 1}, ["train cat"]),
    ],
)
def test_evaluation_needs_neither_train_nor_a_second_class(
    tmp_path: Path, counts: dict[str, int], expected: list[str]
) -> None:
    for name in counts:
        (tmp_path / name).mkdir(parents=True)
    source = FolderSource(image_folder(tmp_path, counts), for_training=False)
    assert [f"{split} {label}" for split, label, _ in found(source)] == expected


@pytest.mark.parametrize(
    ("names", "words"),
    [
        ((), "has no class folders where at least one is expected"),
        (("cat", "dog"), "has no images (.jpg,"),
    ],
)
def test_evaluation_needs_images(tmp_path: Path, names: tuple[str, ...], words: str) -> None:
    for name in names:
        (tmp_path / name).mkdir()
    with pytest.raises(InputError) as error:
        FolderSource(tmp_path, for_training=False)
    assert words in str(error.value)


def test_a_class_name_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    image_folder(tmp_path, {"cat": 1})
    os.mkdir(os.fsencode(tmp_path) + b"/\xff")
    with pytest.raises(InputError, match="not UTF-8"):
        FolderSource(tmp_path)


def test_upper_case_suffixes_are_images(tmp_path: Path) -> None:
    image_folder(tmp_path, {"cat": 1, "dog": 1})
    save_image(tmp_path / "cat" / "IMG.JPG", format="JPEG")
    assert len(FolderSource(tmp_path)) == 3


def test_a_file_name_that_is_not_utf8_can_be_shown_and_read(tmp_path: Path) -> None:
    image_folder(tmp_path, {"a": 1, "b": 1})
    os.rename(os.fsencode(tmp_path / "a" / "000.png"), os.fsencode(tmp_path / "a") + b"/caf\xe9.png")
    first = next(FolderSource(tmp_path).examples())
    assert first.name == r"a/caf\xe9.png"
    assert isinstance(first.data, str)
    assert Path(first.data).exists()
