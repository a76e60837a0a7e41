"""The report of a fit: facts about its training, the options it was given, and their resolved values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np

from trainer.artifact import MODEL_FILE
from trainer.artifact.engine import PROBABILITIES, load_engine
from trainer.data import Dataset, Split
from trainer.data.batches import predict_batches
from trainer.export.export import Exported
from trainer.models import default_architecture
from trainer.option_fields import flag, options
from trainer.reporting.advice import Judgement, Proportion, TrainingFacts
from trainer.reporting.comparison import compare
from trainer.reporting.measure import Measurement
from trainer.reporting.metrics import Mistake
from trainer.reporting.model_report import inspect_command, write_model_report
from trainer.reporting.report import Before
from trainer.runs.run_folder import RunFolder
from trainer.training.earlier import Earlier
from trainer.training.loop import Start, TrainResult
from trainer.training.network import Network
from trainer.training.settings import FitSettings


def write_fit_report(
    run: RunFolder,
    network: Network,
    dataset: Dataset,
    settings: FitSettings,
    start: Start,
    trained: TrainResult,
    exported: Exported,
    measured: Measurement,
    val_mistakes: Sequence[Mistake],
    seconds: Mapping[str, float],
) -> tuple[Judgement, dict[str, Path]]:
    """Write the report of a run into its folder → the verdict with advice, and the files by name."""
    config = settings.config
    return write_model_report(
        run.report,
        measured,
        name=f"{settings.name}, run {run.path.name}",
        class_names=dataset.class_names,
        dataset=dataset.spec,
        trained_on=dataset.spec,
        command=config.command(),
        inspect_command=inspect_command(config.dataset, config.data_dir),
        unseen=True,
        test_images_note="taken from train and " * ("test" in dataset.held_out) + "kept apart for this figure",
        train_images=len(dataset.train),
        val_images=len(dataset.val),
        val_accuracy=exported.val_accuracy,
        given_options={flag(name): text for name, text in config.changed_options().items()},
        other_settings=resolved_options(network, dataset, settings, start, trained),
        seconds=seconds,
        model_file=run.export / MODEL_FILE,
        training=training_facts(dataset, settings, start, trained),
        val_mistakes=val_mistakes,
        before=compare_with_earlier(settings.earlier, dataset, exported, measured) if settings.earlier else None,
    )


def compare_with_earlier(
    earlier: Earlier, dataset: Dataset, exported: Exported, measured: Measurement
) -> Before | None:
    """The new version beside the one that it started from, both as they are served; None without a shared class.

    The images are those of validation and test, which neither learned from.
    """
    old_names, new_names = earlier.artifact.class_names, dataset.class_names
    images = Split(dataset.val.cache, np.concatenate([dataset.val.indices, dataset.test.indices]))
    old, new = np.array(old_names), np.array(new_names)
    truth = new[images.labels]
    shared = np.isin(truth, old)
    if not shared.any():
        return None
    compared = Split(images.cache, images.indices[shared])
    outputs = predict_batches(load_engine(earlier.artifact).predict, compared, f"report: asking {earlier.tag}")
    predicted = np.concatenate([exported.val_probabilities.argmax(1), measured.predicted])[shared]
    return Before(
        earlier.tag,
        compare(truth[shared], old[outputs[PROBABILITIES].argmax(1)], new[predicted]),
        added=[name for name in new_names if name not in old_names],
        gone=[name for name in old_names if name not in new_names],
    )


def training_facts(dataset: Dataset, settings: FitSettings, start: Start, trained: TrainResult) -> TrainingFacts:
    """Facts from which the advice is derived."""
    cache = dataset.train.cache
    return TrainingFacts(
        config=settings.config,
        learning_rate=settings.recipe.learning_rate,
        usual_learning_rate=settings.architecture.recipe.learning_rate,
        pretrained=settings.pretrained or settings.config.weights == "imagenet",
        auto_is_pretrained=default_architecture(cache.sizes.keys(), dataset.pixels.normalize).features is not None,
        history=trained.progress.history,
        steps=trained.progress.step,
        steps_per_epoch=trained.plan.steps_per_epoch,
        end=trained.end,
        images_per_class=dataset.train.counts,
        limited=len(cache) - sum(map(len, (dataset.train, dataset.val, dataset.test))),
        unreadable=len(dataset.rejected),
        curve=start.curve,
        label_issues=Proportion(*start.label_issues) if start.label_issues else None,
    )


def resolved_options(
    network: Network, dataset: Dataset, settings: FitSettings, start: Start, trained: TrainResult
) -> dict[str, str]:
    """Resolved values of the options that were left at their default."""
    config, pixels = settings.config, dataset.pixels
    values = {name: getattr(config, name) for name in options(config)} | asdict(settings.recipe)
    values |= {
        "model": settings.architecture.name,
        "image_size": (pixels.height, pixels.width),
        "epochs": trained.plan.epochs,
        "batch_size": trained.plan.batch_size,
        "normalize": pixels.normalize,
        "augment": settings.recipe.default_augment if config.augment == "auto" else config.augment,
        "flip": "on" if start.flips else "off",
        "precision": network.precision,
    }
    changed = config.changed_options()
    return {
        flag(name): option.format(values[name])
        for name, option in options(config).items()
        if option.affects_result and values[name] is not None and name not in changed
    }
