"""From a run folder to the model store: `trainer save`, and the end of `fit` and of a sweep."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from trainer import artifact
from trainer.artifact import store
from trainer.data import manifest
from trainer.data.manifest import DataManifest
from trainer.errors import ArtifactError, InputError
from trainer.reporting.metrics import SIGNIFICANCE
from trainer.runs.run_folder import EXPORT, FINISHED, note_saved, read_run, resume_command
from trainer.text import shell_command

log = logging.getLogger("trainer")

SHOWN_CLASSES = 5  # of those that a version has lost


@dataclass(frozen=True)
class Published:
    """A new version in the store."""

    tag: str
    promoted: bool  # its name means it from now on
    latest: str | None  # the tag that its name means from now on; None: there is none
    reasons: tuple[str, ...]  # against promoting it
    worse_than: str | None  # the tag that its name meant before, where that is clearly better


def as_result(published: Published | None) -> dict[str, Any]:
    """The fields of Published in a run's result; null where nothing was published."""
    return asdict(published) if published else dict.fromkeys(field.name for field in fields(Published))


@dataclass(frozen=True)
class Comparison:
    """Two models on the test pictures of the one that are test pictures of the other: neither has seen them."""

    images: int
    new_accuracy: float  # 0..1
    old_accuracy: float
    chance: float  # of so many pictures that only the old one names right, were they equally good (McNemar, 1947)

    @property
    def is_worse(self) -> bool:
        """Whether the new one is, clearly."""
        return self.chance < SIGNIFICANCE


@dataclass(frozen=True)
class _Verdict:
    """On a new version, before it takes the place of the one that its name means."""

    latest: str | None  # the tag that the name means
    reasons: tuple[str, ...]  # against the new one
    compared: Comparison | None


def publish_run(folder: Path, name: str | None, *, promote: bool = False) -> Published:
    """`trainer save`: publish the export of a finished run, as `publish` does.

    Raises InputError where the folder is not a run, or its export is not complete.
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
    published = publish(export, name or run["name"], promote=promote)
    with suppress(OSError):  # somebody else's run: it can be read, and no more
        note_saved(folder, published.tag)
    return published


def publish(export: Path, name: str, *, promote: bool = False) -> Published:
    """Publish an artifact as a new version of `name`, from then on the one that is served.

    But for one that is no better than guessing, that lacks a class of the version before, or that is clearly worse than
    it on the pictures that neither has seen: it is kept in the store, and the version before stays the one that is
    served, unless `promote` says otherwise. Raises what `store.publish` does.
    """
    metrics = artifact.read_spec(export)["metrics"]
    guessing = "guess_accuracy" in metrics and metrics["test_accuracy_interval"][0] <= metrics["guess_accuracy"]
    judged = []

    def judge(latest: store.StoredModel | None) -> Sequence[str]:
        judged.append(_judge(export, guessing, latest))
        return () if promote else judged[0].reasons

    tag = store.publish(export, name, judge)
    (verdict,) = judged
    promoted = promote or not verdict.reasons
    _tell(tag, verdict, promoted)
    return Published(
        tag,
        promoted=promoted,
        latest=tag if promoted else verdict.latest,
        reasons=verdict.reasons,
        worse_than=verdict.latest if verdict.compared and verdict.compared.is_worse else None,
    )


def compare(new: DataManifest | None, old: DataManifest | None) -> Comparison | None:
    """By what both answered when they were made; classes by their names, the truth as the new one has it.

    None where no pictures are known to be test pictures of both.
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
        chance=float(binomtest(lost, different, alternative="greater").pvalue) if different else 1,
    )


def _judge(export: Path, guessing: bool, latest: store.StoredModel | None) -> _Verdict:
    reasons = ["hardly better than guessing"] if guessing else []
    if latest is None:
        return _Verdict(None, tuple(reasons), None)
    lost = _lost_classes(export, latest.path)
    if lost:  # with fewer classes it has an easier task: its accuracy says nothing
        shown = ", ".join(lost[:SHOWN_CLASSES]) + (", …" if len(lost) > SHOWN_CLASSES else "")
        are, them = ("is", "it") if len(lost) == 1 else ("are", "them")
        return _Verdict(latest.tag, (*reasons, f"{shown} {are} gone: clients will never get {them} again"), None)
    compared = compare(_identity(export), _identity(latest.path))
    if compared and compared.is_worse:
        reasons.append(
            f"worse than {latest.tag}: {compared.new_accuracy:.1%} right, not {compared.old_accuracy:.1%}, of the "
            f"{compared.images} test images of both"
        )
    return _Verdict(latest.tag, tuple(reasons), compared)


def _lost_classes(new: Path, old: Path) -> list[str]:
    """The classes of an artifact that another one lacks, in order; none where it is damaged."""
    try:
        known = artifact.read_spec(old)["labels"]
    except ArtifactError:
        return []
    kept = set(artifact.read_spec(new)["labels"])
    return [label for label in known if label not in kept]


def _tell(tag: str, verdict: _Verdict, promoted: bool) -> None:
    """Say whether a version takes the place of the one before, and why."""
    latest, reasons = verdict.latest, "; ".join(verdict.reasons)
    if not promoted:
        stays = f"; {latest} stays the one that is served" if latest else ""
        log.warning("%s is kept and not promoted: %s%s", tag, reasons, stays)
    elif reasons:
        log.warning("%s is promoted all the same%s: %s", tag, f" and replaces {latest}" if latest else "", reasons)
    elif verdict.compared:
        log.info(
            "%s is promoted and replaces %s: of the %d test images of both %.1f%% are right, before %.1f%%",
            *(tag, latest, verdict.compared.images),
            *(100 * verdict.compared.new_accuracy, 100 * verdict.compared.old_accuracy),
        )
    elif latest:
        log.info(
            "%s is not compared with %s, which it replaces: no images are known to be test images of both", tag, latest
        )


def _identity(folder: Path) -> DataManifest | None:
    try:
        return manifest.read_manifest(folder)
    except ArtifactError as error:  # no reason to keep a new version back
        log.warning("%s", error)
        return None
