from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from trainer import artifact
from trainer.artifact import store
from trainer.cli import run
from trainer.data.manifest import FILE, DataManifest, read_manifest
from trainer.data.splits import TEST, TRAIN, VAL, content_hash

FIT = ["--epochs=1", "--model=branched_cnn", "--augment=none", "--image-size=16", "--flip=off", "--quantize=none"]


def pictures(root: Path, counts: dict[str, int], *, seed: int) -> Path:
    """`root/<class>/<seed>-<number>.png`, all distinct."""
    generator = np.random.default_rng(seed)
    for name, count in counts.items():
        (root / name).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            pixels = generator.integers(0, 256, (16, 16, 3), np.uint8)
            Image.fromarray(pixels).save(root / name / f"{seed}-{number}.png")
    return root


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `pets/`, 80 pictures of cats and dogs, and `store/` with what `trainer fit` makes of them."""
    folder = tmp_path_factory.mktemp("fitted")
    pictures(folder / "pets", {"cat": 40, "dog": 40}, seed=0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BENTOML_HOME", str(folder / "store"))
        patch.setenv("TRAINER_CACHE_DIR", str(folder / "cache"))
        patch.setenv("BENTOML_DO_NOT_TRACK", "True")
        patch.chdir(folder)
        assert run(["fit", "--dataset", str(folder / "pets"), "--wandb=disabled", "--promote", *FIT]) == 0
    return folder


@pytest.fixture
def identity(fitted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> DataManifest:
    """That of the model `pets`, which is in the store of the test."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BENTOML_HOME", str(shutil.copytree(fitted / "store", tmp_path / "store")))
    identity = read_manifest(store.find("pets").path)
    assert identity is not None
    return identity


def evaluate(dataset: Path | None, capsys: pytest.CaptureFixture[str], *options: str) -> dict[str, Any]:
    """Without a data set: the model's own."""
    capsys.readouterr()
    named = [str(dataset)] if dataset else []
    assert run(["evaluate", "pets", *named, "--json", *options]) == 0
    result: dict[str, Any] = json.loads(capsys.readouterr().out)
    return result


def learned_from(folder: Path, identity: DataManifest) -> list[Path]:
    """The files in `folder` that are training pictures of the model."""
    files = sorted(folder.iterdir())
    hashes = np.array([content_hash(file.read_bytes()) for file in files], np.uint64)
    return [file for file, split in zip(files, identity.splits_of(hashes), strict=True) if split == TRAIN]


def forget_identity() -> None:
    """Make the stored model as an older version of this package would have."""
    path = store.find("pets").path
    (path / FILE).unlink()
    spec = json.loads((path / "spec.json").read_text())
    del spec["files"][FILE]
    (path / "spec.json").write_text(json.dumps(spec))


def test_the_artifact_lists_what_it_was_fitted_on(identity: DataManifest) -> None:
    stored = store.find("pets").path
    assert FILE in artifact.read_spec(stored)["files"]
    assert identity.class_names == ("cat", "dog")
    assert sum(identity.count(split) for split in (TRAIN, VAL, TEST)) == len(identity.content_hashes) == 80
    assert len(identity.held_out_rows) == identity.count(VAL) + identity.count(TEST)
    right = identity.predictions == identity.labels
    for split, figure in ((VAL, "val_accuracy"), (TEST, "test_accuracy")):
        assert right[identity.splits == split].mean() == pytest.approx(artifact.read_spec(stored)["metrics"][figure])


def test_on_its_own_data_the_held_out_pictures_are_measured(
    fitted: Path, identity: DataManifest, capsys: pytest.CaptureFixture[str]
) -> None:
    result = evaluate(None, capsys)
    assert result["dataset"] == f"folder:{fitted / 'pets'}"
    figures = artifact.read_spec(store.find("pets").path)["metrics"]
    assert result["test_accuracy"] == figures["test_accuracy"]
    assert result["val_accuracy"] == figures["val_accuracy"]
    assert (result["test_images"], result["val_images"]) == (identity.count(TEST), identity.count(VAL))
    assert result["seen_images"] == identity.count(TRAIN) + identity.count(VAL)
    assert result["train_images"] == identity.count(TRAIN)


@pytest.mark.usefixtures("identity")
def test_its_own_data_that_is_gone_is_named(fitted: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stored = store.find("pets")
    spec = stored.path / "spec.json"
    spec.write_text(spec.read_text().replace(f"folder:{fitted / 'pets'}", f"folder:{fitted / 'pet'}"))
    capsys.readouterr()
    assert run(["evaluate", "pets"]) == 2
    assert capsys.readouterr().err == (
        f"error: the data set that {stored.tag} was fitted on, folder:{fitted / 'pet'}, cannot be opened: "
        f"{fitted / 'pet'} does not exist; a folder is expected; did you mean folder:{fitted / 'pets'}?\n"
    )


def test_none_of_its_training_pictures_are_measured_when_the_folder_has_grown(
    fitted: Path, identity: DataManifest, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    grown = shutil.copytree(fitted / "pets", tmp_path / "grown")
    pictures(grown, {"cat": 1}, seed=1)
    result = evaluate(grown, capsys)
    assert result["seen_images"] == identity.count(TRAIN) + identity.count(VAL)
    assert result["test_images"] == identity.count(TEST) + 1
    cats = (identity.labels == 0) & (identity.splits == TEST)
    assert result["classes"]["cat"]["images"] == cats.sum() + 1
    # Divided by hand, in whatever way: what it has seen is left out all the same.
    (tmp_path / "divided").mkdir()
    grown.rename(tmp_path / "divided" / "test")
    assert evaluate(tmp_path / "divided", capsys)["test_images"] == result["test_images"]


@pytest.mark.parametrize("below", ["", "test/", "train/"])
def test_all_of_new_data_is_measured_whatever_its_folders(
    identity: DataManifest, tmp_path: Path, capsys: pytest.CaptureFixture[str], below: str
) -> None:
    new = pictures(tmp_path / "new", {f"{below}cat": 15, f"{below}dog": 25}, seed=2)
    result = evaluate(new, capsys)
    assert (result["test_images"], result["seen_images"], result["val_images"]) == (40, 0, 0)
    assert result["val_accuracy"] is None
    assert [result["classes"][name]["images"] for name in ("cat", "dog")] == [15, 25]


def test_what_is_said_of_new_data_is_true(
    fitted: Path, identity: DataManifest, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pictures(tmp_path / "new", {"dog": 12}, seed=3)
    assert run(["evaluate", "pets", "--dataset", str(tmp_path / "new")]) == 0
    printed = capsys.readouterr().out
    assert "measured on 12 images, which it has never seen; left out: none" in printed
    assert "validation" not in printed
    (page,) = Path("report").glob("pets-*-on-new/report.html")
    text = " ".join(page.read_text().split())
    assert "of 12, which it has never seen; on more images" in text
    assert "best epoch" not in text
    assert f'<dd class="value">{identity.count(TRAIN)}</dd> <dd>images of folder:{fitted}/pets in 2 classes' in text


def test_classes_are_matched_by_name_and_one_that_it_lacks_is_told(
    fitted: Path,
    identity: DataManifest,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    new = pictures(tmp_path / "new", {"ant": 3, "dog": 5}, seed=4)
    shutil.copy(learned_from(fitted / "pets" / "dog", identity)[0], new / "dog" / "seen.png")
    result = evaluate(new, capsys)
    assert (result["test_images"], result["seen_images"], result["unknown_classes"]) == (5, 1, {"ant": 3})
    assert result["classes"]["dog"]["images"] == 5
    assert "has no such class: ant (3 images)" in caplog.text
    assert run(["evaluate", "pets", "--dataset", str(new)]) == 0
    assert (
        "left out: 1 that it has seen (training and validation images), 3 of ant, which is none of its classes"
        in capsys.readouterr().out
    )


def test_nothing_to_measure_is_one_line(
    fitted: Path, identity: DataManifest, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "seen" / "cat").mkdir(parents=True)
    for path in learned_from(fitted / "pets" / "cat", identity):
        shutil.copy(path, tmp_path / "seen" / "cat")
    pictures(tmp_path / "other", {"ant": 2, "bee": 2}, seed=5)
    for name, words in (
        ("seen", "nothing is left to measure: 32 of the 32 images"),
        ("other", "its classes (ant, bee) are not those of pets:"),
    ):
        assert run(["evaluate", "pets", "--dataset", str(tmp_path / name)]) == 2
        error = capsys.readouterr().err.strip().splitlines()[-1]
        assert error.startswith("error: --dataset ")
        assert words in error


def test_an_older_artifact_says_what_it_does_not_know(
    fitted: Path,
    identity: DataManifest,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    forget_identity()
    own = evaluate(fitted / "pets", capsys)
    assert own["test_images"] == identity.count(TEST)
    assert own["test_accuracy"] == artifact.read_spec(store.find("pets").path)["metrics"]["test_accuracy"]
    assert "taken to be those that it would be trained on now" in caplog.text
    caplog.clear()
    with caplog.at_level(logging.WARNING, "trainer"):
        new = evaluate(pictures(tmp_path / "new", {"cat": 10, "dog": 10}, seed=6), capsys)
    assert (new["test_images"], new["seen_images"], new["train_images"]) == (20, None, None)
    assert "some may be among those that it is measured on" in caplog.text
    assert run(["evaluate", "pets", "--dataset", str(tmp_path / "new")]) == 0
    assert "measured on 20 images, not known whether it learned from them" in capsys.readouterr().out
