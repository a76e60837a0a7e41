"""`trainer fit`, from the data to the model store, top to bottom."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from trainer.artifact import MODEL_FILE, store
from trainer.artifact.engine import LiteRTEngine
from trainer.config import FitConfig
from trainer.data import Dataset
from trainer.data.sources.spec import check_spec
from trainer.data_checks import pre_fit
from trainer.data_checks.class_counts import log_class_counts
from trainer.export.export import export
from trainer.export.package import package
from trainer.export.stored_weights import read_weights
from trainer.features.extract import Features
from trainer.features.flip_check import check_flips
from trainer.features.warm_start import fit_warm_start, measure_learning_curve
from trainer.fit_report import write_fit_report
from trainer.models import check_model_name
from trainer.reporting.measure import find_mistakes, measure
from trainer.runs.checkpoints import Progress
from trainer.runs.open_run import refuse_private_folder
from trainer.runs.publish import as_result, publish_once
from trainer.runs.record import record_run, training_result
from trainer.runs.run_folder import RunFolder, is_exported
from trainer.runs.tracking import Tracker
from trainer.signals import Signals
from trainer.training.callbacks import CallbackList, Callbacks
from trainer.training.distribution import count_workers, start_strategy
from trainer.training.earlier import find_earlier
from trainer.training.loop import Start, TrainResult, train
from trainer.training.network import Network
from trainer.training.settings import FitSettings, load_dataset, resolve
from trainer.training.throughput import Throughput, announce_duration, measure_throughput
from trainer.training.timer import Timer

log = logging.getLogger("trainer")


def fit(
    config: FitConfig,
    callbacks: Callbacks,
    signals: Signals,
    *,
    wants_export: Callable[[float], bool] = lambda accuracy: True,
    keep_checkpoints: bool = False,
) -> dict[str, Any]:
    """Train, export and (with `config.save`) publish a model; return the run's result as plain JSON values.

    The model is exported, tested and reported if `wants_export(validation accuracy)`. If not, running the same command
    again can export it later: without training again if `keep_checkpoints` was set.
    Raises InputError, RunError (the run can be resumed) and, after a signal, Interrupted.
    """
    timer = Timer(config.time_limit)
    check_model_name(config.model)
    if config.save:
        store.refuse_unwritable()
    check_spec(config.dataset)  # TensorFlow takes seconds to start
    refuse_private_folder(config, count_workers())
    config, earlier = find_earlier(config)
    strategy = start_strategy(signals)
    with timer.section("reading"):
        dataset = load_dataset(config, earlier)
    log_class_counts(dataset)
    pre_fit.log_blank_images(dataset)
    settings = resolve(config, dataset, strategy.num_replicas_in_sync, earlier)
    network = Network(settings, dataset, strategy)
    if earlier:
        weights = read_weights(earlier.artifact.saved_model, network.float32_model())
        network.start_from(weights, earlier.artifact.class_names, dataset.class_names)
    with record_run(config, settings.name, settings.identity, chief=network.chief) as (run, tracker):
        log.info("run folder %s, precision %s", run.path, network.precision)
        result = run.result
        if result and (is_exported(result) or not wants_export(result["val_accuracy"])):
            log.info("%s has finished: nothing is trained again", run.path)
        else:
            if network.chief:
                run.reopen()
            with signals.deferred():
                throughput = measure_throughput(network, dataset, settings, timer)
                announce_duration(throughput, settings, dataset)
                start = prepare(network, dataset, settings, throughput, signals)
                follow = CallbackList(tracker, callbacks)
                trained = train(network, dataset, settings, start, run.checkpoints, follow, throughput, signals)
            result = training_result(run, trained.progress, len(dataset.val))
            if not wants_export(result["val_accuracy"]):
                log.info("the model is not exported: it is not among the best of its sweep so far")
            elif network.chief:
                result |= _export(network, dataset, settings, start, trained, run, tracker, timer)
                run.note_exported(result)
        if network.chief:
            published = publish_once(run.export, settings.name, promote=config.promote) if config.save else None
            result |= as_result(published)
            run.finish(result, keep_checkpoints=keep_checkpoints)
            tracker.summary(result)
    return result


def prepare(
    network: Network, dataset: Dataset, settings: FitSettings, throughput: Throughput, signals: Signals
) -> Start:
    """Fit the linear probe of a pretrained network; check flips and labels, and measure the learning curve."""
    config, timer = settings.config, throughput.timer
    if not settings.pretrained:
        with timer.section("features"):
            flips = check_flips(dataset, config.flip, throughput.training_s, signals.check_interrupted)
        return Start(Progress(), flips)
    features = Features(settings.architecture, network.float32_model(), signals.check_interrupted)
    with timer.section("features"):
        warm = fit_warm_start(features, dataset, config)
    network.set_last_layer(warm.probe.kernel, warm.probe.bias)
    progress = Progress.of_probe(warm.entry)
    if not network.chief or settings.earlier:  # its features know most of the images, whose figures would be too good
        return Start(progress, warm.flips)
    with timer.section("learning curve"):
        curve = measure_learning_curve(warm.plain_probe, features, dataset, config, throughput.training_s)
    label_issues = None
    if pre_fit.can_afford(dataset, timer.left_s):
        with timer.section("features"):
            label_issues = pre_fit.count_label_issues(dataset, features.of(dataset.train), features.of(dataset.val))
    return Start(progress, warm.flips, curve, label_issues)


def _export(
    network: Network,
    dataset: Dataset,
    settings: FitSettings,
    start: Start,
    trained: TrainResult,
    run: RunFolder,
    tracker: Tracker,
    timer: Timer,
) -> dict[str, Any]:
    """Export the network, measure what will be served on the test images (once), and write report and spec."""
    with timer.section("export"):
        exported = export(network.float32_model(), dataset, run.export, settings, timer)
    with timer.section("test"):
        engine, test = LiteRTEngine(run.export / MODEL_FILE), dataset.test
        measured = measure(engine, test, test.labels, run.export, "testing", exported.temperature, exported.threshold)
    with timer.section("report"):
        val_mistakes = find_mistakes(dataset.val, dataset.val.labels, exported.val_probabilities, engine, run.export)
        judgement, files = write_fit_report(
            run, network, dataset, settings, start, trained, exported, measured, val_mistakes, timer.report
        )
    tracker.log_report(files, measured.mistakes, dataset.class_names, measured.evaluation)
    metrics = package(run.export, run.report, dataset, settings, exported, measured)
    return metrics | asdict(judgement) | {"seconds": timer.report}
