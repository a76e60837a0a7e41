"""Publish a run's model to the store, and decide whether it is promoted."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from trainer import artifact
from trainer.artifact import SPEC_FILE, store
from trainer.data import manifest
from trainer.data.manifest import DataManifest
from trainer.errors import ArtifactError, InputError
from trainer.reporting.metrics import SIGNIFICANCE
from trainer.runs.run_folder import EXPORT, FINISHED, note_saved, read_run, resume_command
from trainer.text import shell_command

log = logging.getLogger("trainer")

SHOWN_CLASSES = 5  # at most, of the lost ones


@dataclass(frozen=True)
class Published:
    """A new version in the store, and which version its name stands for."""

    tag: str
    promoted: bool  # the name stands for this version from now on
    latest: str | None  # tag that the name stands for from now on; None: no version
    reasons: tuple[str, ...]  # against promotion
    worse_than: str | None  # tag that the name stood for before, if that is better beyond chance


def as_result(published: Published | None) -> dict[str, Any]:
    """The fields of Published in a run's result; null where nothing was published."""
    return asdict(published) if published else dict.fromkeys(field.name for field in fields(Published))


@dataclass(frozen=True)
class Comparison:
    """Two models compared on the test images that they share, which neither has seen."""

    images: int
    new_accuracy: float  # 0..1
    old_accuracy: float
    p_value: float  # of the old model alone being correct this often if both are equally good (McNemar, 1947)

    @property
    def is_worse(self) -> bool:
        """Whether the new model is worse beyond chance."""
        return self.p_value < SIGNIFICANCE


@dataclass(frozen=True)
class _Decision:
    """Decision whether a new version replaces the one that its name stands for."""

    latest: str | None  # tag that the name stands for
    reasons: tuple[str, ...]  # against the new version
    compared: Comparison | None


def publish_run(folder: Path, name: str | None, *, promote: bool = False) -> Published:
    """`trainer save`: publish the export of a finished run, as `publish_once` does.

    Raises InputError if the folder is not a run, or its export is not complete.
    """
    run = read_run(folder)
    export = folder / EXPORT
    if run["state"] != FINISHED:
        raise InputError(
            f"{folder}: the run has not finished; `{shell_command(resume_command(folder))}` goes on with it"
        )
    if not export.exists():
        raise InputError(
            f"{folder}: its model has not been exported, as that of most trials of a sweep; "
            f"`{shell_command(resume_command(folder))}` does so"
        )
    artifact.load(export)
    published = publish_once(export, name or run["name"], promote=promote)
    with suppress(OSError):  # another user's run may be read-only
        note_saved(folder, published.tag)
    return published


def publish_once(export: Path, name: str, *, promote: bool = False) -> Published:
    """Publish as `publish` does, unless the store has the artifact already: saved before, or by a killed run."""
    versions = _versions(name)
    same = next((version for version in versions if _same_artifact(version.path, export)), None)
    if same is None:
        return publish(export, name, promote=promote)
    log.info("saved already as %s: no other version is made", same.tag)
    if promote or (same == versions[0] and not same.is_latest and not same.not_promoted):
        store.promote(same.tag)
    latest = next((version.tag for version in _versions(name) if version.is_latest), None)
    return Published(same.tag, latest == same.tag, latest, same.not_promoted, worse_than=None)


def _versions(name: str) -> list[store.StoredModel]:
    """The versions of one model, newest first."""
    return [version for version in store.models() if version.path.parent.name == name]


def _same_artifact(stored: Path, export: Path) -> bool:
    """Whether both have the same spec, which has the hash of every other file."""
    try:
        return (stored / SPEC_FILE).read_bytes() == (export / SPEC_FILE).read_bytes()
    except OSError:
        return False


def publish(export: Path, name: str, *, promote: bool = False) -> Published:
    """Publish an artifact as a new version of `name`, and promote it: the name stands for it from then on.

    A version that is no better than guessing, that lacks a class of the current version, or that is worse than it
    beyond chance on images that neither has seen is stored and not promoted, unless `promote` asks for it. Raises what
    `store.publish` does.
    """
    metrics = artifact.read_spec(export)["metrics"]
    guessing = "guess_accuracy" in metrics and metrics["test_accuracy_interval"][0] <= metrics["guess_accuracy"]
    judged = []

    def judge(latest: store.StoredModel | None) -> Sequence[str]:
        judged.append(_judge(export, guessing, latest))
        return () if promote else judged[0].reasons

    tag = store.publish(export, name, judge)
    (decision,) = judged
    promoted = promote or not decision.reasons
    _tell(tag, decision, promoted)
    return Published(
        tag,
        promoted=promoted,
        latest=tag if promoted else decision.latest,
        reasons=decision.reasons,
        worse_than=decision.latest if decision.compared and decision.compared.is_worse else None,
    )


def compare(new: DataManifest | None, old: DataManifest | None) -> Comparison | None:
    """Compare by the recorded test predictions of both; labels are those of the new model.

    None if no image is known to be a test image of both.
    """
    if new is None or old is None:
        return None
    _, ours, theirs = np.intersect1d(
        new.content_hashes[new.test_rows], old.content_hashes[old.test_rows], return_indices=True
    )
    if not len(ours):
        return None
    from scipy.stats import binomtest

    ours, theirs = new.test_rows[ours], old.test_rows[theirs]
    new_names, old_names = np.array(new.class_names), np.array(old.class_names)
    truth = new_names[new.labels[ours]]
    new_right, old_right = new_names[new.predictions[ours]] == truth, old_names[old.predictions[theirs]] == truth
    lost, different = int((old_right & ~new_right).sum()), int((old_right != new_right).sum())
    return Comparison(
        images=len(ours),
        new_accuracy=float(new_right.mean()),
        old_accuracy=float(old_right.mean()),
        p_value=float(binomtest(lost, different, alternative="greater").pvalue) if different else 1,
    )


def _judge(export: Path, guessing: bool, latest: store.StoredModel | None) -> _Decision:
    reasons = ["hardly better than guessing"] if guessing else []
    if latest is None:
        return _Decision(None, tuple(reasons), None)
    lost = _lost_classes(export, latest.path)
    if lost:  # fewer classes are an easier task: the accuracies do not compare
        shown = ", ".join(lost[:SHOWN_CLASSES]) + (", …" if len(lost) > SHOWN_CLASSES else "")
        are, them = ("is", "it") if len(lost) == 1 else ("are", "them")
        return _Decision(latest.tag, (*reasons, f"{shown} {are} gone: clients will never get {them} again"), None)
    compared = compare(_identity(export), _identity(latest.path))
    if compared and compared.is_worse:
        reasons.append(
            f"worse than {latest.tag}: {compared.new_accuracy:.1%} right, not {compared.old_accuracy:.1%}, of the "
            f"{compared.images} test images of both"
        )
    return _Decision(latest.tag, tuple(reasons), compared)


def _lost_classes(new: Path, old: Path) -> list[str]:
    """Classes of the artifact `old` that `new` lacks, in order; none if `old` is damaged."""
    try:
        known = artifact.read_spec(old)["labels"]
    except ArtifactError:
        return []
    kept = set(artifact.read_spec(new)["labels"])
    return [label for label in known if label not in kept]


def _tell(tag: str, decision: _Decision, promoted: bool) -> None:
    """Log whether a version replaces the current one, and why."""
    latest, reasons = decision.latest, "; ".join(decision.reasons)
    if not promoted:
        stays = f"; {latest} stays the one that is served" if latest else ""
        log.warning("%s is kept and not promoted: %s%s", tag, reasons, stays)
    elif reasons:
        log.warning("%s is promoted all the same%s: %s", tag, f" and replaces {latest}" if latest else "", reasons)
    elif decision.compared:
        log.info(
            "%s is promoted and replaces %s: of the %d test images of both %.1f%% are right, before %.1f%%",
            *(tag, latest, decision.compared.images),
            *(100 * decision.compared.new_accuracy, 100 * decision.compared.old_accuracy),
        )
    elif latest:
        log.info(
            "%s is not compared with %s, which it replaces: no images are known to be test images of both", tag, latest
        )


def _identity(folder: Path) -> DataManifest | None:
    try:
        return manifest.read_manifest(folder)
    except ArtifactError as error:  # damage to the current version must not hold a new one back
        log.warning("%s", error)
        return None
