"""The program of a trial: `python -m trainer.sweep.trial OPTIONS`, with the options of `trainer fit`.

It trains as `trainer fit` does, and exports the model only where the sweep may need it. On stdout it writes one JSON
object for each epoch, and at the end the result. When the process at the other end of its stdin dies, it writes a
checkpoint and ends.
"""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer
from typer.main import get_command

from trainer.cli_options import run_command, with_options
from trainer.config import FitConfig
from trainer.console import print_json, reserve_stdout, set_up_logging
from trainer.errors import InputError
from trainer.features.extract import Features, NotCached
from trainer.features.warm_start import WarmStart, fit_warm_start
from trainer.fit import fit
from trainer.runs.checkpoints import Progress
from trainer.runs.publish import as_result
from trainer.runs.record import record_run, training_result
from trainer.signals import Signals, terminate_with_stdin
from trainer.training.callbacks import CallbackList, Callbacks
from trainer.training.distribution import count_workers
from trainer.training.earlier import find_earlier
from trainer.training.settings import FitSettings, load_dataset, resolve
from trainer.training_display import TrainingDisplay


def run_trial(
    config: FitConfig,
    callbacks: Callbacks,
    signals: Signals,
    *,
    export_above: float | None = None,
    keep_checkpoints: bool = False,
) -> dict[str, Any]:
    """Train a trial's network; export it if its validation accuracy exceeds `export_above` (None: always).

    `keep_checkpoints`: nothing is exported now, and `trainer fit` does so later without training again. Raises what
    `fit` does.
    """
    if export_above is None and not keep_checkpoints:
        return fit(config, callbacks, signals)
    if config.save:
        raise InputError("--export-above, --keep-checkpoints: a model that is saved is exported; add --no-save")

    def wants_export(accuracy: float) -> bool:
        return not keep_checkpoints and export_above is not None and accuracy > export_above

    if config.fine_tune == "none" and count_workers() == 1:
        config, earlier = find_earlier(config)
        dataset = load_dataset(config, earlier)
        settings = resolve(config, dataset, earlier=earlier)
        if settings.pretrained:
            try:
                # Without TensorFlow, whose start takes longer than a probe on cached features.
                warm = fit_warm_start(Features(settings.architecture, None, signals.check_interrupted), dataset, config)
            except NotCached:
                pass
            else:
                if not wants_export(warm.entry["val_accuracy"]):
                    return _record_probe(config, settings, warm, len(dataset.val), callbacks)
    return fit(config, callbacks, signals, wants_export=wants_export, keep_checkpoints=keep_checkpoints)


def _record_probe(
    config: FitConfig, settings: FitSettings, warm: WarmStart, val_images: int, callbacks: Callbacks
) -> dict[str, Any]:
    """Record a run that is a linear probe alone → its result."""
    with record_run(config, settings.name, settings.identity) as (run, tracker):
        if run.result is not None:
            return run.result
        CallbackList(tracker, callbacks).on_epoch(warm.entry, step=0, epochs=0)
        result = training_result(run, Progress.of_probe(warm.entry), val_images) | as_result(None)
        run.finish(result)
        tracker.summary(result)
    return result


@with_options(FitConfig)
def command(
    config: FitConfig,
    export_above: Annotated[float | None, typer.Option()] = None,
    keep_checkpoints: Annotated[bool, typer.Option("--keep-checkpoints")] = False,
) -> None:
    """Run one trial of a sweep."""
    terminate_with_stdin()
    with Signals() as signals:
        result = run_trial(
            config,
            TrainingDisplay(json_events=True),
            signals,
            export_above=export_above,
            keep_checkpoints=keep_checkpoints,
        )
    print_json(result)


def main() -> None:
    """Run the trial that the command line describes, and exit."""
    reserve_stdout()
    set_up_logging()
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command()(command)
    sys.exit(run_command(get_command(app), sys.argv[1:]))


if __name__ == "__main__":
    main()
