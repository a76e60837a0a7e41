"""The report on a model: its facts gathered once, for `fit` and `evaluate` alike."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

from trainer.reporting import report
from trainer.reporting.advice import Facts, Judgement, Proportion, TrainingFacts, judge
from trainer.reporting.measure import Measurement
from trainer.reporting.metrics import Mistake
from trainer.text import shell_command

log = logging.getLogger("trainer")


def write_model_report(
    folder: Path,
    measured: Measurement,
    *,
    name: str,
    class_names: Sequence[str],
    dataset: str,
    trained_on: str,
    command: Sequence[str],
    inspect_command: Sequence[str],
    unseen: bool,
    test_images_note: str,
    train_images: int | None,
    val_images: int,
    val_accuracy: float | None,
    given_options: Mapping[str, str],
    other_settings: Mapping[str, str],
    seconds: Mapping[str, float],
    model_file: Path,
    training: TrainingFacts | None = None,
    val_mistakes: Sequence[Mistake] = (),
    before: report.Before | None = None,
) -> tuple[Judgement, dict[str, Path]]:
    """Judge the model and write its report into `folder` → the verdict with advice, and the files by name.

    The arguments are as in `Facts`, `ReportFacts` and `report.write`; `training` None: the model was measured only.
    """
    judgement = judge(
        Facts(
            class_names=class_names,
            test=measured.evaluation,
            unseen=unseen,
            val=None if val_accuracy is None else Proportion.of(val_accuracy, val_images),
            label_issues=measured.label_issues,
            inspect_command=shell_command(inspect_command),
            training=training,
        )
    )
    facts = report.ReportFacts(
        name=name,
        dataset=dataset,
        command=shell_command(command),
        class_names=class_names,
        test_images_note=test_images_note,
        trained_on=trained_on,
        train_images=train_images,
        val_images=val_images,
        val_accuracy=val_accuracy,
        judgement=judgement,
        trust=measured.trust,
        given_options=given_options,
        other_settings=other_settings,
        seconds=seconds,
        model_bytes=model_file.stat().st_size,
        latency_s=measured.latency_s,
        before=before,
    )
    log.info("writing the report")
    files = report.write(
        folder,
        facts,
        evaluation=measured.evaluation,
        history=training.history if training else None,
        curve=training.curve if training else None,
        mistakes=measured.mistakes,
        val_mistakes=val_mistakes,
    )
    return judgement, files


def inspect_command(spec: str, data_dir: Path | None) -> list[str]:
    """The command that shows the images of a data set, and what may be wrong with them."""
    return ["trainer", "data", "inspect", spec, *([f"--data-dir={data_dir}"] if data_dir else [])]
