"""Publish a run's model to the store, and promote it unless there are reasons against."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from trainer import artifact
from trainer.artifact import SPEC_FILE, store
from trainer.errors import InputError
from trainer.files import DISK_ERRORS
from trainer.runs.promotion import Decision, decide, describe
from trainer.runs.run_folder import EXPORT, FINISHED, note_saved, read_run, resume_command
from trainer.text import shell_command

log = logging.getLogger("trainer")


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


def publish_run(folder: Path, name: str | None, *, promote: bool = False, must_match: bool = False) -> Published:
    """`trainer save`, and the winner of a sweep: publish the export of a finished run, as `publish_once` does.

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
    published = publish_once(export, name or run["name"], promote=promote, must_match=must_match)
    try:
        note_saved(folder, published.tag)
    except OSError as error:  # another user's run may be read-only
        if error.errno in DISK_ERRORS:
            raise
    return published


def publish_once(export: Path, name: str, *, promote: bool = False, must_match: bool = False) -> Published:
    """Publish as `publish` does, unless the store has the artifact already: saved before, or by a killed run."""
    versions = _versions(name)
    same = next((version for version in versions if _same_artifact(version.path, export)), None)
    if same is None:
        return publish(export, name, promote=promote, must_match=must_match)
    log.info("saved already as %s: no other version is made", same.tag)
    # The newest one may be so to readers alone: its publisher may have been killed before it was promoted.
    if promote or (same == versions[0] and not same.not_promoted):
        store.promote(same.tag)
    else:
        store.delete_drafts()
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


def publish(export: Path, name: str, *, promote: bool = False, must_match: bool = False) -> Published:
    """Publish an artifact as a new version of `name`, and promote it: the name stands for it from then on.

    A version that is no better than guessing, that lacks a class of the current version, or that is worse than it
    beyond chance (`must_match`: at all) on images that neither learned from is stored and not promoted, unless
    `promote` asks for it. Raises what `store.publish` does.
    """
    decided: list[Decision] = []

    def reasons_against(latest: store.StoredModel | None) -> Sequence[str]:
        decided.append(decide(export, latest, must_match=must_match))
        return () if promote else decided[0].reasons

    tag = store.publish(export, name, reasons_against)
    (decision,) = decided
    promoted = promote or not decision.reasons
    _log_decision(tag, decision, promoted)
    return Published(
        tag,
        promoted=promoted,
        latest=tag if promoted else decision.latest,
        reasons=decision.reasons,
        worse_than=decision.latest if decision.compared and decision.compared.is_worse else None,
    )


def _log_decision(tag: str, decision: Decision, promoted: bool) -> None:
    """Log whether a version replaces the current one, and why."""
    latest, reasons = decision.latest, "; ".join(decision.reasons)
    if not promoted:
        stays = f"; {latest} stays the one that is served" if latest else ""
        log.warning("%s is kept and not promoted: %s%s", tag, reasons, stays)
    elif reasons:
        log.warning("%s is promoted all the same%s: %s", tag, f" and replaces {latest}" if latest else "", reasons)
    elif decision.compared:
        log.info("%s is promoted and replaces %s: %s", tag, latest, describe(decision.compared))
    elif latest:
        log.info(
            "%s is not compared with %s, which it replaces: no images are known to be held out by both", tag, latest
        )
    elif decision.is_doubtful:
        log.warning("%s is promoted as the first version: too few held-out images to tell it from guessing", tag)
