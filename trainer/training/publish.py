"""From a run folder to the model store: `trainer save`, and the end of `fit` and of a sweep."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainer import artifact
from trainer.artifact import store
from trainer.config import InputError
from trainer.training.run_folder import read_run

log = logging.getLogger("trainer")

# Validation accuracy: what a version may lose against the one before without a word.
MAX_LOSS = 0.01


@dataclass(frozen=True)
class Published:
    """A new version in the store."""

    tag: str
    worse_than: str | None  # the tag that it replaces, where that is clearly better


def publish_run(folder: Path, name: str | None) -> Published:
    """`trainer save`: publish the export of a finished run.

    Raises InputError where the folder is not a run, or its export is not complete.
    """
    run = read_run(folder)
    export = folder / "export"
    if run["state"] != "finished":
        raise InputError(f"{folder}: the run has not finished; `trainer fit --resume {folder}` with its options does")
    artifact.load(export)
    return publish(export, name or run["name"])


def publish(export: Path, name: str) -> Published:
    """Publish an artifact as a new version of `name`, from then on the one that is served.

    Warns of one that is no better than guessing, or clearly worse than the version that it replaces. Raises what
    `store.publish` does.
    """
    spec = artifact.read_spec(export)
    replaced = _newest(name)
    tag = store.publish(export, name)
    metrics = spec["metrics"]
    if "guess_accuracy" in metrics and metrics["test_accuracy_interval"][0] <= metrics["guess_accuracy"]:
        log.warning(
            "%s is hardly better than guessing: test accuracy %.1f%%, and always naming the most frequent class "
            "reaches %.1f%%; try more --epochs, more images, or another --learning-rate",
            tag,
            100 * metrics["test_accuracy"],
            100 * metrics["guess_accuracy"],
        )
    if replaced and _is_worse(spec, old := artifact.read_spec(replaced.path)):
        log.warning(
            "%s is worse than %s, which it replaces: validation accuracy %.1f%%, not %.1f%%; "
            "`bentoml models delete %s` goes back",
            tag,
            replaced.tag,
            100 * metrics["val_accuracy"],
            100 * old["metrics"]["val_accuracy"],
            tag,
        )
        return Published(tag, worse_than=replaced.tag)
    return Published(tag, worse_than=None)


def _newest(name: str) -> store.StoredModel | None:
    try:
        return store.find(name)
    except InputError:
        return None


def _is_worse(new: dict[str, Any], old: dict[str, Any]) -> bool:
    """On the same data set; accuracies on others say nothing."""
    return bool(
        new["dataset"] == old["dataset"] and new["metrics"]["val_accuracy"] < old["metrics"]["val_accuracy"] - MAX_LOSS
    )
