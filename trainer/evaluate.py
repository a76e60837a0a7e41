"""`trainer evaluate`: a stored model, as it is served, on what it has never seen of a data set."""

from __future__ import annotations

import logging
import shlex
import statistics
import time
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainer import artifact
from trainer.artifact import Artifact, store
from trainer.artifact.engine import ENGINES, PROBABILITIES, Engine, Outputs, load_engine
from trainer.artifact.explain import explain, load_activation_engine
from trainer.config import FitConfig
from trainer.data import Split, load, load_undivided
from trainer.data.manifest import UNKNOWN, DataIdentity, read
from trainer.data.progress import track
from trainer.data.sources.base import Source
from trainer.data.sources.spec import open_source
from trainer.data.splits import TRAIN, VAL
from trainer.errors import InputError, choose
from trainer.machine import evaluation_batch
from trainer.option_fields import flag, options
from trainer.reporting import advice, metrics, report

log = logging.getLogger("trainer")

WORST = 16  # mistakes shown in a report
TIMED_ANSWERS = 15


@dataclass(frozen=True)
class Part:
    """Some pictures of a data set, with a model's classes [N]."""

    pictures: Split
    labels: NDArray[np.int32]

    def where(self, chosen: NDArray[np.bool_]) -> Part:
        """Those that are `chosen` [N]."""
        return Part(Split(self.pictures.cache, self.pictures.indices[chosen]), self.labels[chosen])


@dataclass(frozen=True)
class Selection:
    """Which pictures of a data set a model is measured on, and how many are left out."""

    unseen: Part
    val: Part  # by which the model was chosen
    seen: int  # what it learned from, and `val`
    strangers: dict[str, int]  # a class that the model does not have → its pictures


def evaluate(
    model: str, spec: str | None, *, engine_name: str, data_dir: Path | None, report_dir: Path | None
) -> dict[str, Any]:
    """Accuracy, per-class figures and calibration error on the pictures that the model has never seen, and a report.

    `spec` None: of the data set that it was fitted on.
    Those are all but what it learned from and what it was chosen by (its own validation pictures, whose accuracy is
    told beside), whichever split they are in now. Raises InputError for unknown names, a data set that has none of the
    model's classes, or one where nothing is left to measure.
    """
    choose("--engine", engine_name, ENGINES)
    stored = store.find(model)
    loaded = artifact.load(stored.path)
    if spec is None:
        spec, data_dir = loaded.dataset, data_dir or _own_data_dir(loaded)
        source = _open_own(stored.tag, spec, data_dir)
    else:
        source = open_source(spec, data_dir, to_learn=False)
    pictures = load_undivided(source, loaded.pixels)
    identity = _identity(stored.tag, loaded, source.spec, data_dir)
    selected = _select(Part(pictures, _labels(stored.tag, loaded, spec, pictures)), identity)
    unseen, val = selected.unseen, selected.val
    if selected.strangers:
        shown = ", ".join(f"{name} ({count} images)" for name, count in selected.strangers.items())
        log.warning("--dataset %s: left out, as %s has no such class: %s", spec, stored.tag, shown)
    if not len(unseen.pictures):
        raise InputError(
            f"--dataset {spec}: nothing is left to measure: {stored.tag} learned from {selected.seen} of the "
            f"{len(pictures)} images, or was chosen by them"
        )
    engine = load_engine(loaded, engine_name)
    outputs = predict_split(engine, unseen.pictures, "measuring")
    probabilities = outputs[PROBABILITIES]
    test = metrics.evaluate(unseen.labels, probabilities)
    val_accuracy = None
    if len(val.pictures):
        answers = predict_split(engine, val.pictures, "measuring on its validation images")
        val_accuracy = metrics.evaluate(val.labels, answers[PROBABILITIES]).accuracy
    trust = None
    if loaded.temperature is not None and loaded.threshold is not None:
        trust = metrics.judge_trust(unseen.labels, outputs, loaded.temperature, loaded.threshold)
    place = [f"--data-dir={data_dir}"] if data_dir else []
    command = ["trainer", "evaluate", stored.tag, f"--dataset={spec}", f"--engine={engine_name}", *place]
    facts = advice.Facts(
        class_names=loaded.class_names,
        test=test,
        unseen=identity is not None,
        val=advice.Share.of(val_accuracy, len(val.pictures)) if val_accuracy is not None else None,
        mislabelled=metrics.mislabelled(unseen.labels, probabilities),
        inspect=shlex.join(["trainer", "data", "inspect", spec, *place]),
        training=None,
    )
    judgement = advice.judge(facts)
    subject = report.Subject(
        name=stored.tag,
        dataset=source.spec,
        command=shlex.join(command),
        class_names=loaded.class_names,
        tested="which it has never seen" if identity else "some of which it may have learned from",
        trained_on=loaded.dataset,
        train_images=identity.count(TRAIN) if identity else None,
        val_images=len(val.pictures),
        val_accuracy=val_accuracy,
        judgement=judgement,
        trust=trust,
        asked={},
        settings={
            flag(name): str(value)
            for name, value in loaded.config.items()
            if name in options(FitConfig) and value is not None
        },
        seconds={},
        model_bytes=loaded.model_file.stat().st_size,
        answer_s=measure_answer(engine, unseen.pictures),
    )
    of_others = "" if source.spec == loaded.dataset else f"-on-{source.name}"  # its own report stays
    folder = report_dir or Path("report") / f"{stored.tag.replace(':', '-')}{of_others}"
    mistakes = worst_mistakes(unseen.pictures, unseen.labels, probabilities, engine, loaded.path)
    log.info("writing the report")
    report.write(folder, subject, evaluation=test, history=None, mistakes=mistakes)
    return {
        "model": stored.tag,
        "trained_on": loaded.dataset,
        "train_images": subject.train_images,
        "dataset": source.spec,
        "engine": engine_name,
        "val_accuracy": val_accuracy,
        "val_images": len(val.pictures),
        "test_accuracy": test.accuracy,
        "test_images": test.images,
        "test_loss": test.loss,
        "calibration_error": test.calibration_error,
        **(asdict(trust) if trust else dict.fromkeys(field.name for field in fields(metrics.Trust))),
        "seen_images": selected.seen if identity else None,
        "unknown_classes": selected.strangers,
        "unreadable_images": len(pictures.cache.rejected),
        "classes": test.to_dict(loaded.class_names)["classes"],
        "report_dir": str(folder),
        **asdict(judgement),
    }


def _own_data_dir(loaded: Artifact) -> Path | None:
    """Where its TFDS data set lay; None where it does not say, or that is gone."""
    recorded = loaded.config.get("data_dir")
    return Path(recorded) if recorded and Path(recorded).is_dir() else None


def _open_own(tag: str, spec: str, data_dir: Path | None) -> Source:
    try:
        source = open_source(spec, data_dir, to_learn=False)
    except InputError as error:
        reason = str(error).removeprefix("--dataset: ")
        raise InputError(f"the data set that {tag} was fitted on, {spec}, cannot be opened: {reason}") from error
    log.info("%s is measured on the data set that it was fitted on, %s", tag, spec)
    return source


def predict_split(engine: Engine, split: Split, what: str) -> Outputs:
    """A serving engine's outputs for the images of a split, in order; `what` names the job where it takes long."""
    height, width, _ = split.shape
    batches = track(split.batches(evaluation_batch(height, width)), len, total=len(split), what=what, bar=None)
    parts = [engine.predict(images) for images in batches]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def measure_answer(engine: Engine, split: Split) -> float:
    """Seconds that one image takes on this machine: the median of a few."""
    image = split.read(np.arange(1))
    engine.predict(image)  # sets the size up
    seconds = []
    for _ in range(TIMED_ANSWERS):
        start = time.perf_counter()
        engine.predict(image)
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


def worst_mistakes(
    split: Split, labels: NDArray[np.int32], probabilities: NDArray[np.float32], engine: Engine, folder: Path
) -> list[metrics.Mistake]:
    """The most confident mistakes with their images, for the report; `labels` [len(split)] are in the model's order.

    `engine` and the artifact in `folder` say what spoke for the wrong answer.
    """
    activation = load_activation_engine(folder)
    mistakes = []
    for index in metrics.worst(labels, probabilities, WORST):
        image = split.read(np.array([index]))[0]
        predicted = int(probabilities[index].argmax())
        mistakes.append(
            metrics.Mistake(
                name=split.name(index),
                image=image,
                true=int(labels[index]),
                predicted=predicted,
                probability=float(probabilities[index].max()),
                heat=explain(image, predicted, engine, activation),
            )
        )
    return mistakes


def _labels(tag: str, loaded: Artifact, spec: str, pictures: Split) -> NDArray[np.int32]:
    """The model's class of each of `pictures`, by name; -1 where it has none. InputError where it has none of them."""
    names = pictures.cache.class_names
    place = {name: index for index, name in enumerate(loaded.class_names)}
    labels = np.array([place.get(name, -1) for name in names], np.int32)[pictures.labels]
    if (labels < 0).all():
        raise InputError(
            f"--dataset {spec}: its classes ({', '.join(names)}) are not those of {tag} "
            f"({', '.join(loaded.class_names)})"
        )
    return labels


def _select(every: Part, identity: DataIdentity | None) -> Selection:
    pictures = every.pictures
    splits = identity.splits_of(pictures.contents) if identity else np.full(len(pictures), UNKNOWN, np.int8)
    seen = (splits == TRAIN) | (splits == VAL)
    known = every.labels >= 0
    strange = pictures.labels[~seen & ~known]
    return Selection(
        unseen=every.where(~seen & known),
        val=every.where((splits == VAL) & known),
        seen=int(seen.sum()),
        strangers={pictures.cache.class_names[label]: int((strange == label).sum()) for label in np.unique(strange)},
    )


def _identity(tag: str, loaded: Artifact, spec: str, data_dir: Path | None) -> DataIdentity | None:
    """What the model was fitted on; of an older one, which does not say, on its own data: what would be now."""
    if identity := read(loaded.path):
        return identity
    if loaded.dataset == spec:
        log.warning(
            "%s does not say which pictures it learned from: taken to be those that it would learn from now", tag
        )
        return DataIdentity.of(load(spec, pixels=loaded.pixels, data_dir=data_dir))
    log.warning("%s does not say which pictures it learned from: they may be among those that it is measured on", tag)
    return None
