"""From a run folder to the model store: `trainer save`, and the end of `fit` and of a sweep."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from trainer import artifact
from trainer.artifact import ArtifactError, store
from trainer.config import InputError
from trainer.data import identity
from trainer.data.identity import DataIdentity
from trainer.training.run_folder import read_run

log = logging.getLogger("trainer")

# Of two versions that are equally good, so many in a hundred would be told to be worse.
MAX_CHANCE = 0.05


@dataclass(frozen=True)
class Published:
    """A new version in the store."""

    tag: str
    worse_than: str | None  # the tag that it replaces, where that is clearly better


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
        return self.chance < MAX_CHANCE


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

    Warns of one that is no better than guessing, or clearly worse than the version that it replaces, on the pictures
    that neither has seen. Raises what `store.publish` does.
    """
    spec = artifact.read_spec(export)
    replaced = _newest(name)
    compared = compare(_identity(export), _identity(replaced.path)) if replaced else None
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
    worse = replaced is not None and _tell_worse(tag, replaced.tag, compared)
    return Published(tag, worse_than=replaced.tag if replaced and worse else None)


def compare(new: DataIdentity | None, old: DataIdentity | None) -> Comparison | None:
    """By what both answered when they were made; classes by their names, the truth as the new one has it.

    None where no pictures are known to be test pictures of both.
    """
    if new is None or old is None:
        return None
    _, ours, theirs = np.intersect1d(new.contents[new.tested], old.contents[old.tested], return_indices=True)
    if not len(ours):
        return None
    from scipy.stats import binomtest

    ours, theirs = new.tested[ours], old.tested[theirs]
    new_names, old_names = np.array(new.class_names), np.array(old.class_names)
    truth = new_names[new.labels[ours]]
    new_right, old_right = new_names[new.answers[ours]] == truth, old_names[old.answers[theirs]] == truth
    lost, different = int((old_right & ~new_right).sum()), int((old_right != new_right).sum())
    return Comparison(
        images=len(ours),
        new_accuracy=float(new_right.mean()),
        old_accuracy=float(old_right.mean()),
        chance=float(binomtest(lost, different, alternative="greater").pvalue) if different else 1,
    )


def _tell_worse(tag: str, replaced: str, compared: Comparison | None) -> bool:
    """Say how a version compares with the one that it replaces; whether it is clearly worse."""
    if compared is None:
        log.info(
            "%s is not compared with %s, which it replaces: no images are known to be test images of both",
            tag,
            replaced,
        )
        return False
    figures = (100 * compared.new_accuracy, 100 * compared.old_accuracy, compared.images)
    if compared.is_worse:
        log.warning(
            "%s is worse than %s, which it replaces: %.1f%% right, not %.1f%%, of the %d test images of both; "
            "`bentoml models delete %s` goes back",
            *(tag, replaced, *figures, tag),
        )
    else:
        log.info(
            "%s is not clearly worse than %s, which it replaces: %.1f%% and %.1f%% right of the %d test images of both",
            *(tag, replaced, *figures),
        )
    return compared.is_worse


def _identity(folder: Path) -> DataIdentity | None:
    try:
        return identity.read(folder)
    except ArtifactError as error:  # no reason to keep a new version back
        log.warning("%s", error)
        return None


def _newest(name: str) -> store.StoredModel | None:
    try:
        return store.find(name)
    except InputError:
        return None
