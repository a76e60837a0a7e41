from __future__ import annotations

import json
import logging
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from trainer.artifact import store
from trainer.data.division import TEST, TRAIN
from trainer.data.identity import FILE, DataIdentity
from trainer.training.publish import Comparison, compare, publish

GUESSING = {"test_accuracy": 0.5, "val_accuracy": 0.5, "test_accuracy_interval": [0.38, 0.62], "guess_accuracy": 0.4}
GOOD = {"test_accuracy": 0.9, "val_accuracy": 0.9, "test_accuracy_interval": [0.8, 0.95], "guess_accuracy": 0.4}


@pytest.fixture
def export(tiny_artifact: Path, tmp_path: Path) -> Path:
    return shutil.copytree(tiny_artifact, tmp_path / "export")


def measured(export: Path, figures: dict[str, Any], **values: Any) -> Path:
    """The artifact, as if these figures had been measured."""
    file = export / "spec.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"metrics": figures} | values))
    return export


def test_a_model_that_guesses_is_published_with_a_warning(export: Path, caplog: pytest.LogCaptureFixture) -> None:
    tag = publish(measured(export, GUESSING), "pets").tag
    assert store.find("pets").tag == tag
    (warning,) = caplog.messages
    assert warning.startswith(f"{tag} is hardly better than guessing: test accuracy 50.0%, ")
    assert "reaches 40.0%" in warning


def answered(export: Path, right: int, *, images: int = 20, first: int = 0) -> Path:
    """The artifact, as if it had been asked for so many test pictures and named the first `right` of them so."""
    answers = np.zeros(images + 1, np.int32)
    answers[right:images] = 1
    answers[images] = -1
    identity = DataIdentity(
        contents=np.append(np.arange(first, first + images), 10**6).astype(np.uint64),
        splits=np.append(np.full(images, TEST), TRAIN).astype(np.int8),
        labels=np.zeros(images + 1, np.int32),
        answers=answers,
        class_names=("cat", "dog"),
    )
    identity.save(export)
    return measured(export, GOOD)


def test_a_worse_version_says_how_to_go_back(export: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "trainer")
    replaced = publish(answered(export, right=18), "pets").tag
    caplog.clear()
    published = publish(answered(export, right=13), "pets")  # 5 of 5: 3 % by chance
    worse = published.tag
    assert published.worse_than == replaced
    assert caplog.messages[-1] == (
        f"{worse} is worse than {replaced}, which it replaces: 65.0% right, not 90.0%, of the 20 test images of both; "
        f"`bentoml models delete {worse}` goes back"
    )
    command = [str(Path(sys.executable).parent / "bentoml"), "models", "delete", "--yes", worse]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    assert store.find("pets").tag == replaced


def test_what_chance_may_do_is_not_called_worse(export: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "trainer")
    old = publish(answered(export, right=18), "pets").tag
    new = publish(answered(export, right=14), "pets")  # 4 of 4: 6 % by chance
    assert new.worse_than is None
    assert caplog.messages[-1] == (
        f"{new.tag} is not clearly worse than {old}, which it replaces: 70.0% and 90.0% right of the 20 test images "
        "of both"
    )


def test_versions_without_common_test_images_are_not_compared(export: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "trainer")
    words = "which it replaces: no images are known to be test images of both"
    publish(answered(export, right=20), "pets")
    assert publish(answered(export, right=0, first=100), "pets").worse_than is None
    assert words in caplog.messages[-1]
    (export / FILE).unlink()  # as an older one
    assert publish(export, "pets").worse_than is None
    assert words in caplog.messages[-1]
    assert publish(answered(export, right=0, first=100), "pets").worse_than is None
    assert words in caplog.messages[-1]


def test_a_version_whose_identity_is_damaged_keeps_none_back(export: Path, caplog: pytest.LogCaptureFixture) -> None:
    old = store.find(publish(answered(export, right=20), "pets").tag)
    (old.path / FILE).write_bytes(b"x")
    assert publish(answered(export, right=0), "pets").worse_than is None
    assert f"{FILE}: cannot be read" in caplog.messages[0]


def test_classes_are_compared_by_name_and_the_new_truth_holds() -> None:
    new = DataIdentity(
        contents=np.arange(4, dtype=np.uint64),
        splits=np.array([TEST, TEST, TEST, TRAIN], np.int8),
        labels=np.array([0, 1, 1, 0], np.int32),
        answers=np.array([0, 1, 0, -1], np.int32),
        class_names=("cat", "dog"),
    )
    old = DataIdentity(
        contents=np.array([1, 2, 3, 4], np.uint64),
        splits=np.full(4, TEST, np.int8),
        labels=np.array([2, 0, 0, 0], np.int32),
        answers=np.array([2, 2, 0, 0], np.int32),
        class_names=("ant", "cat", "dog"),
    )
    compared = compare(new, old)
    assert compared == Comparison(images=2, new_accuracy=0.5, old_accuracy=1.0, chance=0.5)


def test_a_damaged_version_is_replaced(export: Path) -> None:
    damaged = store.find(publish(answered(export, right=10), "pets").tag)
    (damaged.path / "spec.json").write_text("{")
    published = publish(answered(export, right=20), "pets")
    assert store.find("pets").tag == published.tag
    assert published.worse_than is None
