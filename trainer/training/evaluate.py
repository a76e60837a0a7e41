"""`trainer evaluate`: a stored model on a data set, as it is served."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainer import artifact
from trainer.artifact import store
from trainer.artifact.engine import ENGINES, PROBABILITIES, Engine, load_engine
from trainer.config import InputError, choose
from trainer.data import Dataset, Split, load
from trainer.machine import evaluation_batch
from trainer.reporting import metrics, report

WORST = 16  # mistakes shown in a report


def evaluate(
    model: str, spec: str, *, engine_name: str, data_dir: Path | None, report_dir: Path | None
) -> dict[str, Any]:
    """Accuracy on validation and test, per-class figures on test, calibration error, and a report.

    The images are decoded as the model expects them, so that they are divided as they were for its training. Raises
    InputError for unknown names, or a data set whose classes are not the model's.
    """
    choose("--engine", engine_name, ENGINES)
    stored = store.find(model)
    loaded = artifact.load(stored.path)
    dataset = load(spec, pixels=loaded.pixels, data_dir=data_dir)
    if dataset.labels != loaded.labels:
        raise InputError(
            f"--dataset {spec}: its classes ({', '.join(dataset.labels)}) are not those of {stored.tag} "
            f"({', '.join(loaded.labels)})"
        )
    engine = load_engine(loaded, engine_name)
    val = metrics.evaluate(dataset.val.labels, predict_split(engine, dataset.val))
    probabilities = predict_split(engine, dataset.test)
    test = metrics.evaluate(dataset.test.labels, probabilities)
    folder = report_dir or Path("report") / stored.tag.replace(":", "-")
    mistakes = worst_mistakes(dataset.test, probabilities)
    command = ["trainer", "evaluate", stored.tag, f"--dataset={spec}", f"--engine={engine_name}"]
    command += [f"--data-dir={data_dir}"] if data_dir else []
    subject = report_subject(stored.tag, dataset, val.accuracy, command)
    report.write(folder, subject, evaluation=test, history=None, mistakes=mistakes)
    return {
        "model": stored.tag,
        "dataset": dataset.spec,
        "engine": engine_name,
        "val_accuracy": val.accuracy,
        "test_accuracy": test.accuracy,
        "test_loss": test.loss,
        "calibration_error": test.calibration_error,
        "classes": test.to_dict(dataset.labels)["classes"],
        "report_dir": str(folder),
    }


def predict_split(engine: Engine, split: Split) -> NDArray[np.float32]:
    """Probabilities float32 [len(split), K] of a serving engine, in order."""
    height, width, _ = split.shape
    batches = split.batches(evaluation_batch(height, width))
    return np.concatenate([engine.predict(images)[PROBABILITIES] for images in batches])


def report_subject(name: str, dataset: Dataset, val_accuracy: float, command: Sequence[str]) -> report.Subject:
    """What the report of the model `name`, which `command` writes, is about."""
    return report.Subject(
        name=name,
        dataset=dataset.spec,
        command=shlex.join(command),
        labels=dataset.labels,
        train_images=len(dataset.train),
        val_images=len(dataset.val),
        val_accuracy=val_accuracy,
    )


def worst_mistakes(split: Split, probabilities: NDArray[np.float32]) -> list[metrics.Mistake]:
    """The most confident mistakes with their images, for the report."""
    indices = metrics.worst(split.labels, probabilities, WORST)
    return [
        metrics.Mistake(
            name=split.name(index),
            image=split.read(np.array([index]))[0],
            true=int(split.labels[index]),
            predicted=int(probabilities[index].argmax()),
            probability=float(probabilities[index].max()),
        )
        for index in indices
    ]
