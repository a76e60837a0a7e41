"""Decision whether a new version is promoted: it is compared with guessing, and with the version promoted before."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from trainer import artifact
from trainer.artifact import store
from trainer.data.manifest import DataManifest, read_manifest
from trainer.errors import ArtifactError
from trainer.reporting.comparison import Comparison, compare
from trainer.reporting.metrics import accuracy_interval, is_guessing, may_be_guessing

log = logging.getLogger("trainer")

SHOWN_CLASSES = 5  # at most, of the lost ones


@dataclass(frozen=True)
class Decision:
    """Decision whether a new version replaces the one that its name stands for."""

    latest: str | None  # tag that the name stands for
    reasons: tuple[str, ...]  # against the new version
    compared: Comparison | None  # A: the version that the name stands for, B: the new one
    is_doubtful: bool  # the held-out images do not show that it is better than guessing, nor that it is not


def decide(export: Path, latest: store.StoredModel | None, *, must_match: bool = False) -> Decision:
    """Compare the artifact in `export` with guessing, and with the promoted version `latest` on the same images.

    `must_match`: it must be right at least as often as `latest`; without, only a difference beyond chance counts.
    """
    measured = _against_guessing(_manifest(export))
    reasons = ["hardly better than guessing"] if measured and is_guessing(*measured) else []
    doubtful = not reasons and measured is not None and may_be_guessing(*measured)
    if latest is None:
        return Decision(None, tuple(reasons), None, doubtful)
    lost = _lost_classes(export, latest.path)
    if lost:  # fewer classes are an easier task: the accuracies do not compare
        shown = ", ".join(lost[:SHOWN_CLASSES]) + (", …" if len(lost) > SHOWN_CLASSES else "")
        are, them = ("is", "it") if len(lost) == 1 else ("are", "them")
        reasons.append(f"{shown} {are} gone: clients will never get {them} again")
        return Decision(latest.tag, tuple(reasons), None, doubtful)
    compared = compare_stored(latest.path, export)
    if compared is None:
        if doubtful:
            reasons.append(
                f"too few held-out images to tell it from guessing, and none to compare it with {latest.tag}"
            )
    elif compared.is_worse or (must_match and compared.b_correct.sum() < compared.a_correct.sum()):
        reasons.append(
            f"worse than {latest.tag}: {compared.b_accuracy:.1%} right, not {compared.a_accuracy:.1%}, of the "
            f"{compared.images} held-out images of both"
        )
    return Decision(latest.tag, tuple(reasons), compared, doubtful)


def compare_stored(a: Path, b: Path) -> Comparison | None:
    """Compare two artifacts by their recorded predictions for validation and test images that neither learned from.

    Only classes that both have count; labels are those of `b`. None where no image is known to be held out by both.
    """
    old, new = _manifest(a), _manifest(b)
    if old is None or new is None:
        return None
    new_rows, old_rows = new.held_out_rows, old.held_out_rows
    _, ours, theirs = np.intersect1d(new.content_hashes[new_rows], old.content_hashes[old_rows], return_indices=True)
    new_names, old_names = np.array(new.class_names), np.array(old.class_names)
    truth = new_names[new.labels[new_rows[ours]]]
    shared = np.isin(truth, old_names)
    if not shared.any():
        return None
    a_predicted = old_names[old.predictions[old_rows[theirs]]]
    b_predicted = new_names[new.predictions[new_rows[ours]]]
    return compare(truth[shared], a_predicted[shared], b_predicted[shared])


def describe(compared: Comparison) -> str:
    """Accuracy of a new version (B) and of the one that it replaces (A), in a clause."""
    return (
        f"of the {compared.images} held-out images of both {compared.b_accuracy:.1%} are right, "
        f"before {compared.a_accuracy:.1%}"
    )


def _against_guessing(manifest: DataManifest | None) -> tuple[tuple[float, float], float] | None:
    """Confidence interval of the accuracy on all held-out images, and the accuracy of guessing; None without any.

    Validation images, too: the test images of a small data set alone tell little.
    """
    if manifest is None or not len(rows := manifest.held_out_rows):
        return None
    labels = manifest.labels[rows]
    accuracy = float((manifest.predictions[rows] == labels).mean())
    return accuracy_interval(accuracy, len(rows)), float(np.bincount(labels).max() / len(rows))


def _lost_classes(new: Path, old: Path) -> list[str]:
    """Classes of the artifact `old` that `new` lacks, in order; none if `old` is damaged."""
    try:
        known = artifact.read_spec(old)["labels"]
    except ArtifactError:
        return []
    kept = set(artifact.read_spec(new)["labels"])
    return [label for label in known if label not in kept]


def _manifest(folder: Path) -> DataManifest | None:
    try:
        return read_manifest(folder)
    except ArtifactError as error:  # damage to the current version must not hold a new one back
        log.warning("%s", error)
        return None
