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
from trainer.data.splits import TEST, TRAIN, VAL
from trainer.runs.promotion import compare_stored
from trainer.runs.publish import Published, publish, publish_once

FIGURES = {"test_accuracy": 0.9, "val_accuracy": 0.9}
CLASS_NAMES = ("cat", "dog", "hat", "owl")


@pytest.fixture
def export(tiny_artifact: Path, tmp_path: Path) -> Path:
    return shutil.copytree(tiny_artifact, tmp_path / "export")


def measured(export: Path, figures: dict[str, Any], **values: Any) -> Path:
    """The artifact, as if these figures had been measured."""
    file = export / "spec.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"metrics": figures} | values))
    return export


def answered(
    export: Path,
    right: int,
    *,
    images: int = 20,
    first: int = 0,
    val: int = 0,
    most: int = 0,
    **values: Any,
) -> Path:
    """The artifact, as if the first `right` of its held-out images, `val` of validation and the others of test, were
    predicted right. The first `most` of them are of one class, the others of all four."""
    held_out = np.arange(images)
    labels = np.where(held_out < most, 0, held_out % len(CLASS_NAMES))
    predictions = np.where(held_out < right, labels, (labels + 1) % len(CLASS_NAMES))
    identity = DataManifest(
        content_hashes=np.append(np.arange(first, first + images), 10**6).astype(np.uint64),
        splits=np.repeat([VAL, TEST, TRAIN], [val, images - val, 1]).astype(np.int8),
        labels=np.append(labels, 0).astype(np.int32),
        predictions=np.append(predictions, -1).astype(np.int32),
        class_names=CLASS_NAMES,
    )
    identity.save(export)
    return measured(export, FIGURES, **values)


def test_a_model_that_guesses_is_kept_and_not_promoted(export: Path, caplog: pytest.LogCaptureFixture) -> None:
    first = publish(answered(export, right=5), "pets")
    guessing = ("hardly better than guessing",)
    assert first == Published(first.tag, promoted=False, latest=None, reasons=guessing, worse_than=None)
    assert store.find(first.tag).not_promoted == guessing
    (told,) = caplog.messages
    assert told == f"{first.tag} is kept and not promoted: hardly better than guessing"
    good = publish(answered(export, right=18), "pets").tag
    other = {"right": 5, "first": 100}  # other images: it is not compared
    again = publish(answered(export, **other), "pets")
    assert (again.promoted, again.latest, store.find("pets").tag) == (False, good, good)
    assert caplog.messages[-1] == (
        f"{again.tag} is kept and not promoted: hardly better than guessing; {good} stays the one that is served"
    )
    promoted = publish(answered(export, **other), "pets", promote=True)
    assert promoted == Published(promoted.tag, promoted=True, latest=promoted.tag, reasons=guessing, worse_than=None)
    assert store.find("pets").tag == promoted.tag
    assert caplog.messages[-1] == (
        f"{promoted.tag} is promoted all the same and replaces {good}: hardly better than guessing"
    )


def test_a_first_version_with_too_few_images_is_promoted_with_the_doubt(
    export: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """All 8 images are right, and 6 are of one class: 68 to 100 %, by guessing 75 %."""
    few = {"right": 8, "images": 8, "most": 6}
    first = publish(answered(export, **few), "pets")
    assert first == Published(first.tag, promoted=True, latest=first.tag, reasons=(), worse_than=None)
    doubt = "too few held-out images to tell it from guessing"
    assert caplog.messages == [f"{first.tag} is promoted as the first version: {doubt}"]
    # One that is compared on the same images may replace it, one that cannot be compared may not.
    assert publish(answered(export, **few), "pets").promoted
    latest = store.find("pets").tag
    other = publish(answered(export, first=100, **few), "pets")
    assert other.reasons == (f"{doubt}, and none to compare it with {latest}",)


def test_a_version_that_has_lost_a_class_is_not_promoted(export: Path, caplog: pytest.LogCaptureFixture) -> None:
    """And not compared: with fewer classes its task is easier."""
    old = publish(measured(export, FIGURES, labels=["cat", "dog", "hat"]), "pets").tag
    lost = publish(answered(export, right=12, labels=["dog", "cat", "owl"]), "pets")
    reasons = ("hat is gone: clients will never get it again",)
    assert lost == Published(lost.tag, promoted=False, latest=old, reasons=reasons, worse_than=None)
    assert caplog.messages[-1] == (
        f"{lost.tag} is kept and not promoted: {reasons[0]}; {old} stays the one that is served"
    )
    fewer = publish(measured(export, FIGURES, labels=["cat"]), "pets")
    assert fewer.reasons == ("dog, hat are gone: clients will never get them again",)
    more = publish(measured(export, FIGURES, labels=["owl", "hat", "dog", "cat"]), "pets")
    assert (more.promoted, store.find("pets").tag) == (True, more.tag)


def test_a_worse_version_is_not_promoted(export: Path, caplog: pytest.LogCaptureFixture) -> None:
    better = publish(answered(export, right=18), "pets").tag
    published = publish(answered(export, right=13), "pets")  # 5 of 5: 3 % by chance
    worse, reason = published.tag, f"worse than {better}: 65.0% right, not 90.0%, of the 20 held-out images of both"
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
        f"{new.tag} is promoted and replaces {old}: of the 20 held-out images of both 70.0% are right, before 90.0%"
    )


def test_versions_without_common_test_images_are_not_compared(export: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "trainer")
    words = "which it replaces: no images are known to be held out by both"
    publish(answered(export, right=20), "pets")
    assert publish(answered(export, right=15, first=100), "pets").worse_than is None
    assert words in caplog.messages[-1]
    (export / FILE).unlink()  # as an older one
    assert publish(export, "pets").worse_than is None
    assert words in caplog.messages[-1]
    assert publish(answered(export, right=15, first=100), "pets").worse_than is None
    assert words in caplog.messages[-1]


def test_a_version_whose_identity_is_damaged_keeps_none_back(export: Path, caplog: pytest.LogCaptureFixture) -> None:
    old = store.find(publish(answered(export, right=20), "pets").tag)
    (old.path / FILE).write_bytes(b"x")
    assert publish(answered(export, right=12), "pets").promoted
    assert f"{FILE}: cannot be read" in caplog.messages[0]


def test_validation_images_are_compared_where_neither_learned_from_them(export: Path) -> None:
    old = publish(answered(export, right=20, val=8), "pets").tag
    worse = publish(answered(export, right=10, val=15), "pets")  # the other 5 of both are test images
    assert worse.reasons == (f"worse than {old}: 50.0% right, not 100.0%, of the 20 held-out images of both",)


def test_a_winner_of_a_sweep_has_to_match_the_promoted_version(export: Path) -> None:
    old = publish(answered(export, right=18), "pets").tag
    fewer = publish(answered(export, right=17), "pets", must_match=True)
    assert fewer.reasons == (f"worse than {old}: 85.0% right, not 90.0%, of the 20 held-out images of both",)
    assert (fewer.latest, fewer.worse_than) == (old, None)  # chance may do that
    assert publish(answered(export, right=18), "pets", must_match=True).promoted


def test_classes_are_compared_by_name_and_the_new_truth_holds(tmp_path: Path) -> None:
    """Only classes of both count: image 3 is now called `owl`, which the old model could not know."""
    new = DataManifest(
        content_hashes=np.arange(5, dtype=np.uint64),
        splits=np.array([TEST, TEST, VAL, TEST, TRAIN], np.int8),
        labels=np.array([0, 1, 1, 2, 0], np.int32),
        predictions=np.array([0, 1, 0, 2, -1], np.int32),
        class_names=("cat", "dog", "owl"),
    )
    old = DataManifest(
        content_hashes=np.array([1, 2, 3, 4, 5], np.uint64),
        splits=np.full(5, TEST, np.int8),
        labels=np.array([2, 0, 0, 0, 0], np.int32),
        predictions=np.array([2, 2, 0, 0, 0], np.int32),
        class_names=("ant", "cat", "dog"),
    )
    for name, manifest in (("new", new), ("old", old)):
        (tmp_path / name).mkdir()
        manifest.save(tmp_path / name)
    compared = compare_stored(tmp_path / "old", tmp_path / "new")
    assert compared is not None
    assert (compared.images, compared.a_accuracy, compared.b_accuracy, compared.p_worse) == (2, 1.0, 0.5, 0.5)


def test_a_damaged_version_is_replaced(export: Path) -> None:
    damaged = store.find(publish(answered(export, right=10), "pets").tag)
    (damaged.path / "spec.json").write_text("{")
    published = publish(answered(export, right=20), "pets")
    assert store.find("pets").tag == published.tag
    assert published.worse_than is None


def test_a_run_that_was_killed_after_it_published_publishes_nothing_twice(export: Path) -> None:
    first_export = shutil.copytree(measured(export, FIGURES), export.parent / "first")
    first = publish_once(export, "pets")
    again = publish_once(export, "pets")
    assert (again.tag, again.promoted, again.latest) == (first.tag, True, first.tag)
    # Killed before the name stood for it.
    (store.find(first.tag).path.parent / "latest").unlink()
    newer = publish(measured(export, FIGURES, test_loss=0.5), "pets")
    (store.find(newer.tag).path.parent / "latest").write_text(first.tag.partition(":")[2])
    assert publish_once(export, "pets") == Published(newer.tag, True, newer.tag, (), None)
    assert store.find("pets").tag == newer.tag
    # An older version is not promoted again by its finished run.
    old = publish_once(first_export, "pets")
    assert (old.tag, old.promoted, store.find("pets").tag) == (first.tag, False, newer.tag)
    assert len(store.models()) == 2
    assert publish_once(export, "others").tag.startswith("others:")
