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


@dataclass(frozen=True, eq=False)
class Selection:
    """The images of a data set that neither model learned from, N of classes that both have."""

    images: Split
    is_val: NDArray[np.bool_]  # [N]: a validation image of one of the models, by which it was chosen
    train_images: int  # left out: one of the models was trained on them
    other_classes: int  # left out: one of the models lacks their class
    unknown: list[str]  # tags of models whose training images are not known


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
    if spec is None:
        source, data_dir = open_own(stored[-1].tag, stored[-1].loaded, data_dir)
    else:
        source = open_source(spec, data_dir, for_training=False)
    selected = _select(a, b, stored, source, data_dir)
    predicted = [model.predict(source, selected.images) for model in (a, b)]
    taken = predicted[1].class_names != REFUSED
    if not taken.any():
        raise InputError(f"--url: {url} takes none of the {len(taken)} images")
    images = Split(selected.images.cache, selected.images.indices[taken])
    predicted_a, predicted_b = (predictions.where(taken) for predictions in predicted)
    truth = np.array(images.cache.class_names)[images.labels]
    compared = compare_predictions(truth, predicted_a.class_names, predicted_b.class_names)
    batch_ms = _batch_ms(stored, source, images)
    folder = report_dir or Path("report") / f"{b.tag}-beside-{a.tag}".replace(":", "-")
    facts = PageFacts(
        dataset=source.spec,
        command=shell_command(
            ["trainer", "compare", a.tag, f"--url={url}" if url else b.tag, f"--dataset={source.spec}"]
        ),
        relation=f"may be training images of {' and '.join(selected.unknown)}"
        if selected.unknown
        else "neither learned from",
        val_images=int(selected.is_val[taken].sum()),
        a=Side(a.tag, measure_predictions(predicted_a, truth), batch_ms.get(a.tag)),
        b=Side(b.tag, measure_predictions(predicted_b, truth), batch_ms.get(b.tag)),
    )
    page = write_page(folder, facts, compared, images, predicted_a, predicted_b)
    return {
        "a": facts.a.to_dict(),
        "b": facts.b.to_dict(),
        "dataset": source.spec,
        "images": compared.images,
        "relation": facts.relation,
        "val_images": facts.val_images,
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
        log.warning(
            "%s is not in this store: some of the images that it is compared on may be its training images", tag
        )
    return LocalModel(stored) if stored else None


def _select(
    a: LocalModel, b: Predictor, stored: Sequence[LocalModel], source: Source, data_dir: Path | None
) -> Selection:
    """The images of `source` that are training images of no model, as far as these are `stored`, and of a shared class.

    Raises InputError where there is none.
    """
    shared = [name for name in a.class_names if name in b.class_names]
    if not shared:
        raise InputError(f"{a.tag} and {b.tag} have no class in common; at least one is expected")
    images = load_undivided(source, a.loaded.pixels)
    unknown = [b.tag] if stored[-1].tag != b.tag else []
    learned, chosen_by = np.zeros((2, len(images)), bool)
    for model in stored:
        if manifest := manifest_of(model.tag, model.loaded, source.spec, data_dir):
            splits = manifest.splits_of(images.content_hashes)
            learned |= splits == TRAIN
            chosen_by |= splits == VAL
        else:
            unknown.append(model.tag)
    has_class = np.isin(images.cache.class_names, shared)[images.labels]
    selected = ~learned & has_class
    other_classes = int((~learned & ~has_class).sum())
    if not selected.any():
        raise InputError(
            f"--dataset {source.spec}: nothing is left to compare: of its {len(images)} images {learned.sum()} are "
            f"training images of {a.tag} or {b.tag}, and {other_classes} are of classes that not both have"
        )
    return Selection(
        Split(images.cache, images.indices[selected]),
        chosen_by[selected],
        train_images=int(learned.sum()),
        other_classes=other_classes,
        unknown=unknown,
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
