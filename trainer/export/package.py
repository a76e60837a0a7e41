"""The artifact around the exported network: data manifest, reference answers, report, `spec.json` with the metrics."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from trainer import artifact
from trainer.artifact.reference import REFERENCE_IMAGES, save_reference
from trainer.data import Dataset
from trainer.data.manifest import DataManifest
from trainer.data.sources.tfds import data_root
from trainer.export.export import Exported, evenly_spaced
from trainer.export.provenance import git_revision, library_versions
from trainer.files import copy_folder
from trainer.reporting.measure import Measurement
from trainer.reporting.metrics import accuracy_interval
from trainer.training.settings import FitSettings


def package(
    folder: Path, report: Path, dataset: Dataset, settings: FitSettings, exported: Exported, measured: Measurement
) -> dict[str, Any]:
    """Complete the artifact in `folder`; return its metrics as plain JSON values, which its spec contains, too."""
    copy_folder(report, folder / "report")
    predictions = exported.val_probabilities.argmax(1), measured.predicted
    DataManifest.of(dataset, predictions, settings.earlier.manifest if settings.earlier else None).save(folder)
    positions = evenly_spaced(dataset.val, REFERENCE_IMAGES)
    save_reference(folder, dataset.val.read(positions), exported.val_probabilities[positions])
    test, trust = measured.evaluation, measured.trust
    metrics = {
        "val_accuracy": exported.val_accuracy,
        "val_accuracy_interval": list(accuracy_interval(exported.val_accuracy, len(dataset.val))),
        "test_accuracy": test.accuracy,
        "test_accuracy_interval": list(test.accuracy_interval),
        "guess_accuracy": test.guess_accuracy,
        "test_loss": test.loss,
        "calibration_error": test.calibration_error,
        **(asdict(trust) if trust else {}),
        "int8_agreement": exported.check.agreement if exported.check else None,
        "quantization": exported.quantization,
    }
    # Where `evaluate` finds a TFDS data set again; other specs are paths.
    data_dir = str(data_root(settings.config.data_dir).absolute()) if dataset.spec.startswith("tfds:") else None
    artifact.write_spec(
        folder,
        class_names=dataset.class_names,
        pixels=dataset.pixels,
        dataset=dataset.spec,
        config=settings.config.result_settings()
        | asdict(settings.recipe)
        | {"model": settings.architecture.name, "data_dir": data_dir},
        metrics=metrics,
        quantization=exported.quantization,
        temperature=exported.temperature,
        threshold=exported.threshold,
        versions=library_versions(),
        git_revision=git_revision(),
    )
    return metrics
