"""`trainer compare`: two models on the images of a data set that neither learned from."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainer.artifact import store
from trainer.data import Split, load_undivided
from trainer.data.manifest import UNKNOWN
from trainer.data.sources.base import Source
from trainer.data.sources.spec import open_source
from trainer.data.splits import TRAIN, VAL
from trainer.errors import InputError
from trainer.evaluate import manifest_of, open_own
from trainer.predictors import REFUSED, LocalModel, Predictor, ServedModel
from trainer.remote import Server
from trainer.reporting.comparison import compare as compare_predictions
from trainer.reporting.comparison_page import PageFacts, Side, write_page
from trainer.reporting.latency import median_seconds
from trainer.reporting.predictions import measure_predictions
from trainer.text import shell_command

log = logging.getLogger("trainer")

TIMED_BATCHES = (1, 32)
TIMED_RUNS = 9


@dataclass(frozen=True)
class Selection:
    """The images of a data set that neither model learned from, and how many others there are."""

    images: Split  # of classes that both models have
    val_images: int  # of these, validation images of one of the models, by which it was chosen
    train_images: int  # left out: one of the models was trained on them
    other_classes: int  # left out: one of the models lacks their class


def compare(
    model_a: str,
    model_b: str | None,
    spec: str | None,
    *,
    url: str | None = None,
    token: str = "",
    data_dir: Path | None = None,
    report_dir: Path | None = None,
) -> dict[str, Any]:
    """Compare model A with model B, and write a page with the images that one of them alone gets right → JSON values.

    `url`: B is the model that answers at that server; `model_b`, if given, has to be its version. `spec` None: the data
    set that B was fitted on, or A where the store does not have B. Images that one of them was trained on, and those of
    classes that one lacks, are left out. Raises InputError where none is left, and for unknown names and data sets.
    """
    a, b = LocalModel(store.find(model_a)), _model_b(model_b, url, token)
    b_stored = b if isinstance(b, LocalModel) else _stored_version(b.tag)
    stored = [a, b_stored] if b_stored else [a]
    shared = [name for name in a.class_names if name in b.class_names]
    if not shared:
        raise InputError(f"{a.tag} and {b.tag} have no class in common; at least one is expected")
    if spec is None:
        source, data_dir = open_own(stored[-1].tag, stored[-1].loaded, data_dir)
    else:
        source = open_source(spec, data_dir, for_training=False)
    everything = load_undivided(source, a.loaded.pixels)
    selected = _select(everything, [_splits(model, source, everything, data_dir) for model in stored], shared)
    if not len(selected.images):
        raise InputError(
            f"--dataset {source.spec}: nothing is left to compare: of its {len(everything)} images "
            f"{selected.train_images} are training images of {a.tag} or {b.tag}, and {selected.other_classes} are of "
            "classes that not both have"
        )
    predicted = [model.predict(source, selected.images) for model in (a, b)]
    taken = predicted[1].class_names != REFUSED
    if not taken.any():
        raise InputError(f"--url: {url} takes none of the {len(taken)} images")
    images = Split(everything.cache, selected.images.indices[taken])
    predicted = [predictions.where(taken) for predictions in predicted]
    truth = np.array(images.cache.class_names)[images.labels]
    compared = compare_predictions(truth, predicted[0].class_names, predicted[1].class_names)
    batch_ms = _batch_ms(stored, source, images)
    side_a, side_b = (
        Side(model.tag, measure_predictions(predictions, truth), batch_ms.get(model.tag))
        for model, predictions in zip((a, b), predicted, strict=True)
    )
    folder = report_dir or Path("report") / f"{b.tag}-beside-{a.tag}".replace(":", "-")
    command = ["trainer", "compare", a.tag, *([] if url else [b.tag]), f"--dataset={source.spec}"]
    facts = PageFacts(
        dataset=source.spec,
        command=shell_command([*command, *([f"--url={url}"] if url else [])]),
        val_images=selected.val_images,
        a=side_a,
        b=side_b,
    )
    page = write_page(folder, facts, compared, images, *predicted)
    return {
        "a": side_a.to_dict(),
        "b": side_b.to_dict(),
        "dataset": source.spec,
        "images": compared.images,
        "val_images": selected.val_images,
        "train_images": selected.train_images,
        "other_classes": selected.other_classes,
        "refused_images": int((~taken).sum()),
        "only_a": len(compared.only_a),
        "only_b": len(compared.only_b),
        "p_worse": compared.p_worse,
        "p_better": compared.p_better,
        "verdict": compared.verdict,
        "classes": {change.name: asdict(change) for change in compared.classes()},
        "page": str(page),
    }


def _model_b(model: str | None, url: str | None, token: str) -> Predictor:
    """Model B: the one of the store, or the one that answers at `url`, which has to be the version `model` if given."""
    if url is None:
        if model is None:
            raise InputError("compare: a second model is expected, or --url: trainer compare MODEL_A MODEL_B")
        return LocalModel(store.find(model))
    served = ServedModel(Server(url, token))
    if model is not None and (expected := store.find(model).tag) != served.tag:
        raise InputError(f"--url: {url} answers with {served.tag}, and not with {expected}")
    return served


def _stored_version(tag: str) -> LocalModel | None:
    """The version of the store that a server answers with; None with a warning where the store does not have it."""
    stored = next((model for model in store.models() if model.tag == tag), None)
    if stored is None:
        log.warning("%s is not in this store: it may have learned from images that it is compared on", tag)
        return None
    return LocalModel(stored)


def _splits(model: LocalModel, source: Source, images: Split, data_dir: Path | None) -> NDArray[np.int8]:
    """Split of each of `images` in the data that `model` was fitted on, int8 [N]; UNKNOWN for others."""
    manifest = manifest_of(model.tag, model.loaded, source.spec, data_dir)
    return manifest.splits_of(images.content_hashes) if manifest else np.full(len(images), UNKNOWN, np.int8)


def _select(images: Split, splits: Sequence[NDArray[np.int8]], shared: Sequence[str]) -> Selection:
    """The images that are in the train split of no model, by their `splits` [N], and of a class of `shared`."""
    learned = np.any([of_model == TRAIN for of_model in splits], axis=0)
    has_class = np.isin(images.cache.class_names, shared)[images.labels]
    chosen_by = np.any([of_model == VAL for of_model in splits], axis=0)
    selected = ~learned & has_class
    return Selection(
        Split(images.cache, images.indices[selected]),
        val_images=int((selected & chosen_by).sum()),
        train_images=int(learned.sum()),
        other_classes=int((~learned & ~has_class).sum()),
    )


def _batch_ms(models: Sequence[LocalModel], source: Source, images: Split) -> dict[str, dict[str, float]]:
    """Milliseconds that each model's file takes for a batch on this machine, in turn: tag → batch size → time."""
    found: dict[str, dict[str, float]] = {model.tag: {} for model in models}
    for size in TIMED_BATCHES:
        positions = np.arange(size) % len(images)
        batches = [(model.engine, model.decoded(source, images).read(positions)) for model in models]
        for model, seconds in zip(models, median_seconds(batches, TIMED_RUNS), strict=True):
            found[model.tag][str(size)] = 1000 * seconds
    return found
