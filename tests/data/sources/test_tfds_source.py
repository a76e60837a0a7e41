from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow_datasets as tfds
from tfds_datasets import prepare, random_pixels

from trainer.data import load
from trainer.data.sources.tfds import TfdsSource
from trainer.errors import InputError
from trainer.images.decode import decode
from trainer.images.pixels import PixelSpec

MNIST = Path(__file__).parents[3] / "../shared/data/tfds"


SPLITS = {"train": [0, 1, 2, 1, 0, 2] * 10, "validation": [2, 0, 1], "test": [-1, -1], "extra": [0]}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tfds")
    prepare(folder, "animals", SPLITS)
    return folder


def test_encoded_images_and_labels_come_in_the_dataset_s_order(prepared: Path) -> None:
    source = TfdsSource("animals", prepared)
    examples = list(source.examples())
    assert source.class_names == ("zebra", "ant", "mole")
    assert (source.spec, source.name) == ("tfds:animals:1.2.0", "animals")
    assert len(source) == len(examples) == 65
    assert [example.split for example in examples] == ["train"] * 60 + ["val"] * 3 + ["test"] * 2
    validation = examples[60:63]
    for index, example in enumerate(validation):
        assert isinstance(example.data, bytes)
        assert example.label == SPLITS["validation"][index]
        np.testing.assert_array_equal(decode(example.data, PixelSpec(10, 12, 3)), random_pixels("validation", index))
    assert [example.name for example in validation] == ["validation[0]", "validation[1]", "validation[2]"]


def test_deprecation_warnings_of_tfds_are_hidden(prepared: Path, caplog: pytest.LogCaptureFixture) -> None:
    list(TfdsSource("animals", prepared).examples())
    assert not [record for record in caplog.records if record.name != "trainer"]


@pytest.mark.parametrize(
    "names", [("train", "Validation", "Test"), ("Training", "VALID", "eval"), ("TRAIN", "dev", "testing")]
)
def test_splits_in_any_case_and_under_other_names_are_read(
    tmp_path: Path, names: tuple[str, str, str], caplog: pytest.LogCaptureFixture
) -> None:
    train, val, test = names
    prepare(tmp_path, "animals", {train: [0, 1, 2] * 10, val: [0, 1], test: [2], "extra": [0] * 3, "train_2": [1]})
    dataset = load("tfds:animals", data_dir=tmp_path)
    assert (len(dataset.train), len(dataset.val), len(dataset.test)) == (30, 2, 1)
    assert "not read, as they are not train, val or test: extra, train_2" in caplog.text


def test_a_test_split_without_labels_is_logged(prepared: Path, caplog: pytest.LogCaptureFixture) -> None:
    load("tfds:animals", data_dir=prepared)
    assert "2 images of test have no class and are not used" in caplog.text


def test_unlabelled_examples_are_ignored(prepared: Path) -> None:
    dataset = load("tfds:animals", data_dir=prepared)
    assert (len(dataset.train), len(dataset.val), len(dataset.test)) == (52, 3, 8)  # test has no labels
    assert dataset.ignored == 2
    assert dataset.pixels == PixelSpec(10, 12, 3)


def test_tfds_data_dir_names_the_folder(prepared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TFDS_DATA_DIR", str(prepared))
    assert TfdsSource("animals:1.2.0").spec == "tfds:animals:1.2.0"


def test_the_fingerprint_changes_with_the_files(prepared: Path) -> None:
    first = TfdsSource("animals", prepared).fingerprint
    assert TfdsSource("animals", prepared).fingerprint == first
    file = next((prepared / "animals" / "1.2.0").glob("*train*"))
    os.utime(file, ns=(1, 1))
    assert TfdsSource("animals", prepared).fingerprint != first


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("mnits", ["TFDS has no dataset 'mnits'", "mnist"]),
        ("animal", ["TFDS has no dataset 'animal'", "animals"]),
        ("cifar10", ["not prepared in", "--data-dir or TFDS_DATA_DIR", "tfds.builder('cifar10', data_dir="]),
        ("animals:9.9.9", ["tfds:animals:9.9.9 is not prepared", "(prepared there: animals/1.2.0)"]),
        ("animals/other", ["tfds:animals/other is not prepared"]),
    ],
)
def test_missing_datasets_are_refused_by_name(prepared: Path, name: str, words: list[str]) -> None:
    with pytest.raises(InputError) as error:
        TfdsSource(name, prepared)
    for part in words:
        assert part in str(error.value)
    assert "\n" not in str(error.value)


def test_the_suggested_command_runs_up_to_the_download(tmp_path: Path) -> None:
    with pytest.raises(InputError) as error:
        TfdsSource("mnist", tmp_path)
    code = str(error.value).split('python -c "')[1].removesuffix('"')
    code = code.replace(".download_and_prepare()", ".download_and_prepare")  # there is no network in tests
    assert subprocess.run([sys.executable, "-c", code], check=False, capture_output=True).returncode == 0


@pytest.mark.parametrize(
    ("features", "words"),
    [
        (lambda f: {"label": f.ClassLabel(names=["a", "b"])}, "one image (Image feature) but has none among label"),
        (lambda f: {"image": f.Image()}, "one label (ClassLabel feature) but has none among image"),
        (
            lambda f: {"picture": f.Image(), "other": f.Image(), "label": f.ClassLabel(names=["a", "b"])},
            "one image (Image feature) but has several: picture, other",
        ),
        (lambda f: {"image": f.Image(), "label": f.ClassLabel(names=["a"])}, "has 1 classes; at least 2"),
    ],
)
def test_datasets_without_images_and_classes_are_refused(tmp_path: Path, features: Any, words: str) -> None:
    prepare(tmp_path, "odd", {"train": [0]}, features(tfds.features))
    with pytest.raises(InputError) as error:
        TfdsSource("odd", tmp_path)
    assert words in str(error.value).replace("other, picture", "picture, other")


def test_a_missing_train_split_is_refused(tmp_path: Path) -> None:
    prepare(tmp_path, "odd", {"test": [0]})
    with pytest.raises(InputError, match="has no train split, only test"):
        TfdsSource("odd", tmp_path)
    assert [example.split for example in TfdsSource("odd", tmp_path, for_training=False).examples()] == ["test"]


def test_supervised_keys_choose_the_label(tmp_path: Path) -> None:
    f = tfds.features
    labels = {"fine": f.ClassLabel(names=["a", "b"]), "coarse": f.ClassLabel(names=["x", "y"])}
    folder = prepare(tmp_path, "odd", {"train": [0, 1]}, {"picture": f.Image()} | labels)
    with pytest.raises(InputError, match="one label"):
        TfdsSource("odd", tmp_path)
    info = json.loads((folder / "dataset_info.json").read_text())
    info["supervisedKeys"] = {"tuple": {"items": [{"featureKey": "picture"}, {"featureKey": "fine"}]}}
    (folder / "dataset_info.json").write_text(json.dumps(info))
    assert TfdsSource("odd", tmp_path).class_names == ("a", "b")


def test_damaged_files_are_refused(tmp_path: Path) -> None:
    [file] = prepare(tmp_path, "animals", {"train": [0, 1, 2]}).glob("*train*")
    os.truncate(file, file.stat().st_size - 20)
    with pytest.raises(InputError, match="damaged or missing: prepare it again"):
        list(TfdsSource("animals", tmp_path).examples())
    file.unlink()
    with pytest.raises(InputError, match="damaged or missing: prepare it again"):
        list(TfdsSource("animals", tmp_path).examples())


def test_a_pattern_of_file_names_that_cannot_be_filled_is_refused(tmp_path: Path) -> None:
    folder = prepare(tmp_path, "patterns", {"train": [0, 1, 2]})
    description = folder / "dataset_info.json"
    text = description.read_text()
    pattern = "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}"
    assert pattern in text
    for other in (pattern + "}", "{0}", "{DATASET.x}", "{DATASET:d}"):
        description.write_text(text.replace(pattern, other))
        with pytest.raises(InputError, match=r"tfds:patterns.*prepare it again"):
            list(TfdsSource("patterns", tmp_path).examples())


def test_a_class_may_have_no_examples(tmp_path: Path) -> None:
    prepare(tmp_path, "animals", {"train": [0, 2] * 10})
    dataset = load("tfds:animals", data_dir=tmp_path)
    assert dataset.train.counts.tolist() == [7, 0, 7]


@pytest.mark.skipif(not MNIST.exists(), reason="needs the shared TFDS MNIST beside the checkout")
def test_mnist_is_found_without_reading_it() -> None:
    source = TfdsSource("mnist", MNIST)
    assert (source.spec, source.name, source.default_normalize) == ("tfds:mnist:3.0.1", "mnist", "mnist")
    assert source.class_names == tuple("0123456789")
    assert len(source) == 70_000


@pytest.mark.parametrize("within", ["animals", "animals/1.0.0"])
def test_data_dir_may_be_the_dataset_s_own_folder(prepared: Path, within: str) -> None:
    assert TfdsSource("animals", prepared / within).fingerprint == TfdsSource("animals", prepared).fingerprint
