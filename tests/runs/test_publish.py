from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from trainer.artifact import store
from trainer.data.manifest import FILE, DataManifest
from trainer.data.splits import TEST, TRAIN
from trainer.runs.publish import Comparison, Published, compare, publish, publish_once

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


def test_a_model_that_guesses_is_kept_and_not_promoted(export: Path, caplog: pytest.LogCaptureFixture) -> None:
    first = publish(measured(export, GUESSING), "pets")
    guessing = ("hardly better than guessing",)
    assert first == Published(first.tag, promoted=False, latest=None, reasons=guessing, worse_than=None)
    assert store.find(first.tag).not_promoted == guessing
    (told,) = caplog.messages
    assert told == f"{first.tag} is kept and not promoted: hardly better than guessing"
    good = publish(measured(export, GOOD), "pets").tag
    again = publish(measured(export, GUESSING), "pets")
    assert (again.promoted, again.latest, store.find("pets").tag) == (False, good, good)
    assert caplog.messages[-1] == (
        f"{again.tag} is kept and not promoted: hardly better than guessing; {good} stays the one that is served"
    )
    promoted = publish(measured(export, GUESSING), "pets", promote=True)
    assert promoted == Published(promoted.tag, promoted=True, latest=promoted.tag, reasons=guessing, worse_than=None)
    assert store.find("pets").tag == promoted.tag
    assert caplog.messages[-1] == (
        f"{promoted.tag} is promoted all the same and replaces {good}: hardly better than guessing"
    )


def test_a_version_that_has_lost_a_class_is_not_promoted(export: Path, caplog: pytest.LogCaptureFixture) -> None:
    """And not compared: with fewer classes its task is easier."""
    old = publish(measured(export, GOOD, labels=["cat", "dog", "hat"]), "pets").tag
    lost = publish(answered(export, right=0, labels=["dog", "cat", "owl"]), "pets")
    reasons = ("hat is gone: clients will never get it again",)
    assert lost == Published(lost.tag, promoted=False, latest=old, reasons=reasons, worse_than=None)
    assert caplog.messages == [f"{lost.tag} is kept and not promoted: {reasons[0]}; {old} stays the one that is served"]
    fewer = publish(measured(export, GOOD, labels=["cat"]), "pets")
    assert fewer.reasons == ("dog, hat are gone: clients will never get them again",)
    more = publish(measured(export, GOOD, labels=["owl", "hat", "dog", "cat"]), "pets")
    assert (more.promoted, store.find("pets").tag) == (True, more.tag)


def answered(export: Path, right: int, *, images: int = 20, first: int = 0, **values: Any) -> Path:
    """The artifact, as if it had been asked for so many test pictures and named the first `right` of them so."""
    answers = np.zeros(images + 1, np.int32)
    answers[right:images] = 1
    answers[images] = -1
    identity = DataManifest(
        content_hashes=np.append(np.arange(first, first + images), 10**6).astype(np.uint64),
        splits=np.append(np.full(images, TEST), TRAIN).astype(np.int8),
        labels=np.zeros(images + 1, np.int32),
        predictions=answers,
        class_names=("cat", "dog"),
    )
    identity.save(export)
    return measured(export, GOOD, **values)


def test_a_worse_version_is_not_promoted(export: Path, caplog: pytest.LogCaptureFixture) -> None:
    better = publish(answered(export, right=18), "pets").tag
    published = publish(answered(export, right=13), "pets")  # 5 of 5: 3 % by chance
    worse, reason = published.tag, f"worse than {better}: 65.0% right, not 90.0%, of the 20 test images of both"
    assert published == Published(worse, promoted=False, latest=better, reasons=(reason,), worse_than=better)
    assert caplog.messages == [f"{worse} is kept and not promoted: {reason}; {better} stays the one that is served"]
    third = publish(answered(export, right=13), "pets", promote=True)
    assert (third.promoted, third.worse_than, store.find("pets").tag) == (True, better, third.tag)
    assert caplog.messages[-1] == f"{third.tag} is promoted all the same and replaces {better}: {reason}"


def test_what_chance_may_do_is_not_called_worse(export: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "trainer")
    old = publish(answered(export, right=18), "pets").tag
    new = publish(answered(export, right=14), "pets")  # 4 of 4: 6 % by chance
    assert new.worse_than is None
    assert caplog.messages[-1] == (
        f"{new.tag} is promoted and replaces {old}: of the 20 test images of both 70.0% are right, before 90.0%"
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
    new = DataManifest(
        content_hashes=np.arange(4, dtype=np.uint64),
        splits=np.array([TEST, TEST, TEST, TRAIN], np.int8),
        labels=np.array([0, 1, 1, 0], np.int32),
        predictions=np.array([0, 1, 0, -1], np.int32),
        class_names=("cat", "dog"),
    )
    old = DataManifest(
        content_hashes=np.array([1, 2, 3, 4], np.uint64),
        splits=np.full(4, TEST, np.int8),
        labels=np.array([2, 0, 0, 0], np.int32),
        predictions=np.array([2, 2, 0, 0], np.int32),
        class_names=("ant", "cat", "dog"),
    )
    compared = compare(new, old)
    assert compared == Comparison(images=2, new_accuracy=0.5, old_accuracy=1.0, p_value=0.5)


def test_a_damaged_version_is_replaced(export: Path) -> None:
    damaged = store.find(publish(answered(export, right=10), "pets").tag)
    (damaged.path / "spec.json").write_text("{")
    published = publish(answered(export, right=20), "pets")
    assert store.find("pets").tag == published.tag
    assert published.worse_than is None


def test_a_run_that_was_killed_after_it_published_publishes_nothing_twice(export: Path) -> None:
    first_export = shutil.copytree(measured(export, GOOD), export.parent / "first")
    first = publish_once(export, "pets")
    again = publish_once(export, "pets")
    assert (again.tag, again.promoted, again.latest) == (first.tag, True, first.tag)
    # Killed before the name stood for it.
    (store.find(first.tag).path.parent / "latest").unlink()
    newer = publish(measured(export, GOOD, test_loss=0.5), "pets")
    (store.find(newer.tag).path.parent / "latest").write_text(first.tag.partition(":")[2])
    assert publish_once(export, "pets") == Published(newer.tag, True, newer.tag, (), None)
    assert store.find("pets").tag == newer.tag
    # An older version is not promoted again by its finished run.
    old = publish_once(first_export, "pets")
    assert (old.tag, old.promoted, store.find("pets").tag) == (first.tag, False, newer.tag)
    assert len(store.models()) == 2
    assert publish_once(export, "others").tag.startswith("others:")
