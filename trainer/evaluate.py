"""`trainer evaluate`: a stored model, as it is served, on the images of a data set that it has not seen."""

from __future__ import annotations

import logging
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainer import artifact
from trainer.artifact import Artifact, store
from trainer.artifact.engine import ENGINES, PROBABILITIES, load_engine
from trainer.config import FitConfig
from trainer.data import Split, load, load_undivided
from trainer.data.batches import predict_batches
from trainer.data.manifest import UNKNOWN, DataManifest, read_manifest
from trainer.data.sources.base import Source
from trainer.data.sources.spec import open_source
from trainer.data.splits import TRAIN, VAL
from trainer.errors import InputError, choose
from trainer.option_fields import flag, options
from trainer.reporting.measure import measure
from trainer.reporting.metrics import Trust
from trainer.reporting.metrics import evaluate as compute_metrics
from trainer.reporting.model_report import inspect_command, write_model_report

log = logging.getLogger("trainer")


@dataclass(frozen=True)
class LabelledImages:
    """Images of a data set with their labels int32 [N] in the order of a model's classes; -1: not one of them."""

    images: Split
    labels: NDArray[np.int32]

    def where(self, selected: NDArray[np.bool_]) -> LabelledImages:
        """The images that are `selected` [N]."""
        return LabelledImages(Split(self.images.cache, self.images.indices[selected]), self.labels[selected])


@dataclass(frozen=True)
class Selection:
    """The images of a data set on which a model is measured, and how many are left out."""

    unseen: LabelledImages
    val: LabelledImages  # the model's own validation images
    seen: int  # training and validation images
    unknown_classes: dict[str, int]  # a class that the model lacks → its images


def evaluate(
    model: str, spec: str | None, *, engine_name: str, data_dir: Path | None, report_dir: Path | None
) -> dict[str, Any]:
    """Measure a stored model on images that it has not seen, and write a report; return the metrics as JSON values.

    `spec` None: the data set that the model was fitted on. The model's training and validation images are left out,
    whichever split they are in now; the accuracy on the validation images is reported separately. Raises InputError for
    unknown names, a data set that has none of the model's classes, or one where nothing is left to measure.
    """
    choose("--engine", engine_name, ENGINES)
    stored = store.find(model)
    loaded = artifact.load(stored.path)
    if spec is None:
        spec = loaded.dataset
        source, data_dir = open_own(stored.tag, loaded, data_dir)
    else:
        source = open_source(spec, data_dir, for_training=False)
    images = load_undivided(source, loaded.pixels)
    manifest = manifest_of(stored.tag, loaded, source.spec, data_dir)
    selected = _select(LabelledImages(images, _labels(stored.tag, loaded, spec, images)), manifest)
    unseen, val = selected.unseen, selected.val
    if selected.unknown_classes:
        shown = ", ".join(f"{name} ({count} images)" for name, count in selected.unknown_classes.items())
        log.warning("--dataset %s: left out, as %s has no such class: %s", spec, stored.tag, shown)
    if not len(unseen.images):
        raise InputError(
            f"--dataset {spec}: nothing is left to measure: {selected.seen} of the {len(images)} images are training "
            f"or validation images of {stored.tag}"
        )
    engine = load_engine(loaded, engine_name)
    scale = loaded.temperature, loaded.threshold
    measured = measure(engine, unseen.images, unseen.labels, loaded.path, "measuring", *scale)
    val_accuracy = None
    if len(val.images):
        outputs = predict_batches(engine.predict, val.images, "measuring on its validation images")
        val_accuracy = compute_metrics(val.labels, outputs[PROBABILITIES]).accuracy
    on_other_data = "" if source.spec == loaded.dataset else f"-on-{source.name}"  # the model's own report stays
    folder = report_dir or Path("report") / f"{stored.tag.replace(':', '-')}{on_other_data}"
    place = [f"--data-dir={data_dir}"] if data_dir else []
    judgement, _ = write_model_report(
        folder,
        measured,
        name=stored.tag,
        class_names=loaded.class_names,
        dataset=source.spec,
        trained_on=loaded.dataset,
        command=["trainer", "evaluate", stored.tag, f"--dataset={spec}", f"--engine={engine_name}", *place],
        inspect_command=inspect_command(spec, data_dir),
        unseen=manifest is not None,
        test_images_note="which it has never seen" if manifest else "some of which it may have learned from",
        train_images=manifest.count(TRAIN) if manifest else None,
        val_images=len(val.images),
        val_accuracy=val_accuracy,
        given_options={},
        other_settings={
            flag(name): str(value)
            for name, value in loaded.config.items()
            if name in options(FitConfig) and value is not None
        },
        seconds={},
        model_file=loaded.model_file,
    )
    test, trust = measured.evaluation, measured.trust
    return {
        "model": stored.tag,
        "trained_on": loaded.dataset,
        "train_images": manifest.count(TRAIN) if manifest else None,
        "dataset": source.spec,
        "engine": engine_name,
        "val_accuracy": val_accuracy,
        "val_images": len(val.images),
        "test_accuracy": test.accuracy,
        "test_images": test.images,
        "test_loss": test.loss,
        "calibration_error": test.calibration_error,
        **(asdict(trust) if trust else dict.fromkeys(field.name for field in fields(Trust))),
        "seen_images": selected.seen if manifest else None,
        "unknown_classes": selected.unknown_classes,
        "unreadable_images": len(images.cache.rejected),
        "classes": test.to_dict(loaded.class_names)["classes"],
        "report_dir": str(folder),
        **asdict(judgement),
    }


def open_own(tag: str, loaded: Artifact, data_dir: Path | None) -> tuple[Source, Path | None]:
    """The data set that a model was fitted on, and the folder of a TFDS data set (None: the default one).

    `data_dir` None: the recorded folder where it still exists. Raises InputError where the data cannot be opened.
    """
    recorded = loaded.config.get("data_dir")
    if data_dir is None and recorded and Path(recorded).is_dir():
        data_dir = Path(recorded)
    try:
        source = open_source(loaded.dataset, data_dir, for_training=False)
    except InputError as error:
        reason = str(error).removeprefix("--dataset: ")
        raise InputError(
            f"the data set that {tag} was fitted on, {loaded.dataset}, cannot be opened: {reason}"
        ) from error
    log.info("measured on the data set that %s was fitted on, %s", tag, loaded.dataset)
    return source, data_dir


def _labels(tag: str, loaded: Artifact, spec: str, images: Split) -> NDArray[np.int32]:
    """The model's label for each of `images`, by class name; -1 without one. Raises InputError if no image has one."""
    names = images.cache.class_names
    label_of = {name: label for label, name in enumerate(loaded.class_names)}
    labels = np.array([label_of.get(name, -1) for name in names], np.int32)[images.labels]
    if (labels < 0).all():
        raise InputError(
            f"--dataset {spec}: its classes ({', '.join(names)}) are not those of {tag} "
            f"({', '.join(loaded.class_names)})"
        )
    return labels


def _select(labelled: LabelledImages, manifest: DataManifest | None) -> Selection:
    images = labelled.images
    splits = manifest.splits_of(images.content_hashes) if manifest else np.full(len(images), UNKNOWN, np.int8)
    seen = (splits == TRAIN) | (splits == VAL)
    has_class = labelled.labels >= 0
    unknown = images.labels[~seen & ~has_class]
    return Selection(
        unseen=labelled.where(~seen & has_class),
        val=labelled.where((splits == VAL) & has_class),
        seen=int(seen.sum()),
        unknown_classes={
            images.cache.class_names[label]: int((unknown == label).sum()) for label in np.unique(unknown)
        },
    )


def manifest_of(tag: str, loaded: Artifact, spec: str, data_dir: Path | None) -> DataManifest | None:
    """The images that the model was fitted on; for an older model without a manifest those of its own data now."""
    if manifest := read_manifest(loaded.path):
        return manifest
    if loaded.dataset == spec:
        log.warning("%s does not record its training images: taken to be those that it would be trained on now", tag)
        return DataManifest.of(load(spec, pixels=loaded.pixels, data_dir=data_dir))
    log.warning("%s does not record its training images: some may be among those that it is measured on", tag)
    return None
