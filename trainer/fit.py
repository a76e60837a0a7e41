"""`trainer fit`, from the data to the model store, top to bottom."""

from __future__ import annotations

import logging
import math
import platform
import shlex
import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, fields
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Literal, Protocol

from trainer import artifact
from trainer.artifact import store
from trainer.artifact.engine import PROBABILITIES, LiteRTEngine
from trainer.config import FitConfig, Recipe, slug
from trainer.console import close_with_next
from trainer.data import Dataset, load
from trainer.data.manifest import DataIdentity
from trainer.data.sources.spec import check_spec
from trainer.data.sources.tfds import data_root
from trainer.data_checks.pre_fit import log_empty
from trainer.errors import DivergedError, InputError, Interrupted, RunError
from trainer.evaluate import measure_answer, predict_split, worst_mistakes
from trainer.features.extract import Features, NotKept
from trainer.features.warm_start import start_from_head
from trainer.machine import quiet_stderr
from trainer.models import AUTO, Architecture, check_name, choose_architecture, find, suggest
from trainer.option_fields import flag, options
from trainer.reporting import advice, metrics, report
from trainer.runs import tracking
from trainer.runs.checkpoints import Checkpoints, Progress
from trainer.runs.publish import Published, publish
from trainer.runs.run_folder import RunFolder, open_run, refuse_private_folder
from trainer.training.distribution import count_workers, is_chief, make_strategy
from trainer.training.plan import Plan, make_plan
from trainer.training.timer import Clock

if TYPE_CHECKING:
    from trainer.training.estimator import Estimator

log = logging.getLogger("trainer")

FEW_TRAINING_IMAGES = 30  # of a class
# Settings that other entries of a run's identity stand for, then those that change nothing of how the network learns.
NOT_OF_IDENTITY = ("image_size", "normalize", "timed_epochs", "time_limit", "quantize", "confidence")


class Display(Protocol):
    """What the command line shows and asks while a run goes on."""

    def on_progress(self, step: int, total_steps: int) -> None: ...

    def on_epoch(self, entry: dict[str, float], epochs: int) -> None: ...

    def check_interrupted(self) -> None:
        """Raise Interrupted once a signal has come."""

    def defer_signals(self) -> AbstractContextManager[None]:
        """While it lasts, signals wait for `check_interrupted`."""


def fit(config: FitConfig, display: Display, export_above: float | None = None) -> dict[str, Any]:
    """Train, export and (with `config.save`) publish; the run's result as plain JSON values.

    `export_above`: where validation accuracy does not exceed this, nothing is exported, tested and reported: a trial
    that is not among the best of its sweep. It is exported by the same command without this; `math.inf` keeps the
    checkpoints, so that nothing is trained anew for that.
    Raises InputError, RunError (the run can be resumed) and, after a signal, Interrupted.
    """
    clock = Clock(config.time_limit)
    check_name(config.model)
    if config.save:
        store.refuse_unwritable()
    check_spec(config.dataset)  # TensorFlow takes seconds to start
    if export_above is not None and (result := _judge_head(config, display, export_above)):
        return result
    log.info("starting TensorFlow")
    from trainer.training.estimator import Estimator

    refuse_private_folder(config, count_workers())
    # TensorFlow warns of missing CUDA drivers before any setting of its own is read. What it says while workers look
    # for each other is of use.
    with quiet_stderr() if count_workers() == 1 else display.defer_signals():
        strategy = make_strategy(display.check_interrupted)  # before anything else asks TensorFlow for something
    chief = is_chief(strategy)
    with clock.part("reading"):
        dataset = _load(config)
    log_counts(dataset)
    name = config.name or slug(dataset.name)
    estimator = Estimator(config, dataset, strategy, clock)
    if chief and config.model == AUTO:
        why = "not small and gray" if estimator.architecture.features else "small and gray, or as MNIST's"
        log.info("--model auto is %s: the images are %s", estimator.architecture.name, why)
    made_of = identity(config, dataset, estimator.architecture, estimator.recipe, estimator.plan)
    with _recorded(config, name, made_of, chief=chief) as (run, tracker):
        log.info("run folder %s, precision %s", run.path, estimator.precision)
        result = run.result
        if result is None or not _is_settled(result, export_above):
            if chief and result is not None:
                log.info("%s has finished and was not exported: it goes on with that", run.path)
                run.update(state="running", result=None)
            observer = _Observer(display, tracker, lambda: estimator.plan.epochs)
            with display.defer_signals():
                progress = estimator.train_and_evaluate(Checkpoints(run.checkpoints, estimator.checkpoint), observer)
            result = _reached(run, progress, dataset)
            if export_above is not None and progress.best_accuracy <= export_above:
                log.info("not among the best so far: nothing is exported")
            elif chief:
                result |= _finish(estimator, name, run, progress, tracker)
        else:
            log.info("%s has finished: nothing is trained again", run.path)
        if chief:
            published = publish(run.export, name, promote=config.promote) if config.save else None
            result |= asdict(published) if published else dict.fromkeys(field.name for field in fields(Published))
            run.finish(result, keep_checkpoints=export_above == math.inf)
            tracker.summary(result)
    return result


def _judge_head(config: FitConfig, display: Display, export_above: float) -> dict[str, Any] | None:
    """The result of a run that fits a head on kept features, and does not exceed `export_above`; None for any other.

    It needs no TensorFlow, whose start takes longer than the head.
    """
    if config.fine_tune != "none" or count_workers() > 1:
        return None
    dataset = _load(config)
    architecture = choose_architecture(config, dataset.train.cache.sizes.keys(), dataset.pixels.normalize)
    if architecture.features is None:
        return None
    try:
        progress = start_from_head(Features(architecture, None, display.check_interrupted), dataset, config).progress
    except NotKept:
        return None
    if progress.best_accuracy > export_above:
        return None
    recipe = config.recipe(architecture.recipe)
    made_of = identity(config, dataset, architecture, recipe, make_plan(config, recipe, len(dataset.train)))
    with _recorded(config, config.name or slug(dataset.name), made_of) as (run, tracker):
        if run.result is not None:
            return run.result
        _Observer(display, tracker, lambda: 0).on_epoch(progress.history[0], 0)
        result = _reached(run, progress, dataset) | dict.fromkeys(field.name for field in fields(Published))
        run.finish(result)
        tracker.summary(result)
    return result


def _is_settled(result: Mapping[str, Any], export_above: float | None) -> bool:
    """Whether nothing is left to do for a finished run: it was exported, or does not exceed `export_above`."""
    return "test_accuracy" in result or (export_above is not None and result["val_accuracy"] <= export_above)


def _load(config: FitConfig) -> Dataset:
    return load(
        config.dataset,
        image_size=config.image_size,
        normalize=normalization(config),
        wish=lambda sizes: choose_architecture(config, sizes, "none").wish,
        data_dir=config.data_dir,
        seed=config.seed,
        limit=config.limit,
    )


def _reached(run: RunFolder, progress: Progress, dataset: Dataset) -> dict[str, Any]:
    """What is known at the end of a training, before anything is exported."""
    return {
        "run_dir": str(run.path),
        "epochs": progress.epochs,
        "train_seconds": sum(entry["seconds"] for entry in progress.history),
        "images_per_second": progress.history[-1]["images_per_second"],
        "val_accuracy": progress.best_accuracy,
        "val_accuracy_interval": list(metrics.accuracy_interval(progress.best_accuracy, len(dataset.val))),
    }


@contextmanager
def _recorded(
    config: FitConfig, name: str, made_of: Mapping[str, Any], *, chief: bool = True
) -> Iterator[tuple[RunFolder, tracking.Tracker]]:
    """The run's folder, and what follows its figures; both are closed as the run has ended."""
    run = open_run(config, name, made_of, shared=not chief)
    tracker = tracking.start(
        config.wandb if chief else "disabled",
        config={**config.decisive(), "dataset_fingerprint": made_of["fingerprint"]},
        run_dir=run.path,
        name=run.path.name,
        run_id=run.wandb_id,
        resume=run.resumed,
    )
    try:
        if chief:
            run.update(wandb_id=tracker.id)
        yield run, tracker
    except BaseException as error:
        tracker.finish(exit_code=getattr(error, "exit_code", 1), error=str(error) or type(error).__name__)
        if chief:
            _leave(run, error)
        raise
    finally:
        run.close()
    tracker.finish(exit_code=0, error=None)


def _leave(run: RunFolder, error: BaseException) -> None:
    """What remains of a run that has failed: the command that continues it, or nothing where it was refused."""
    if isinstance(error, InputError) and not run.checkpoints.exists():
        run.forget()
    elif isinstance(error, RunError | Interrupted | OSError) and not isinstance(error, DivergedError):
        close_with_next(error, *run.command)


def normalization(config: FitConfig) -> str:
    """What `--normalize auto` is: left to the data, but for a network that takes colour alone.

    Raises InputError for what such a network cannot take.
    """
    colour_alone = config.model != AUTO and find(config.model, config.weights).wish.channels == 3
    if config.normalize == "mnist" and colour_alone:
        raise InputError(
            f"--normalize mnist: makes gray images, and --model {config.model} takes colour; leave one out"
        )
    return "none" if config.normalize == "auto" and colour_alone else config.normalize


def identity(
    config: FitConfig, dataset: Dataset, architecture: Architecture, recipe: Recipe, plan: Plan
) -> dict[str, Any]:
    """What a run folder may be continued for: the same data, split alike, the same network, trained in the same way.

    Options stand there as what they became: asking for what would be chosen anyway changes nothing.
    """
    settings = config.decisive() | asdict(recipe)
    for name in NOT_OF_IDENTITY:
        del settings[name]
    return settings | {
        "dataset": dataset.spec,
        "fingerprint": dataset.fingerprint,
        "labels": list(dataset.class_names),
        "input": dataset.pixels.to_dict(),
        "model": architecture.name,
        "batch_size": plan.batch_size,
        "epochs": plan.epochs,
    }


def log_counts(dataset: Dataset) -> None:
    """Say what is trained on, and warn of few images, of empty ones, and of classes that are far from balanced."""
    pixels = dataset.pixels
    log.info(
        "%s: %d classes, %d train + %d validation + %d test images, %dx%dx%d",
        dataset.spec,
        len(dataset.class_names),
        *(len(split) for split in (dataset.train, dataset.val, dataset.test)),
        *(pixels.height, pixels.width, pixels.channels),
    )
    counts = dataset.train.counts
    shown = ", ".join(f"{label} {count}" for label, count in zip(dataset.class_names, counts, strict=True))
    log.info("training images per class: %s", shown)
    if counts.min() < FEW_TRAINING_IMAGES:
        log.warning(
            "class %s has only %d training images; below %d a network learns little",
            dataset.class_names[int(counts.argmin())],
            counts.min(),
            FEW_TRAINING_IMAGES,
        )
    images = len(dataset.test)
    if images < metrics.FEW_TEST_IMAGES:
        log.warning(
            "%d test images tell the accuracy to within %.0f points; %d and more tell it to within 10",
            images,
            100 * 0.98 / math.sqrt(images),  # half of the 95 % interval at an accuracy of 50 %
            metrics.FEW_TEST_IMAGES,
        )
    if counts.max() > 3 * max(1, counts.min()):
        log.warning(
            "the largest class has %.1f times the images of the smallest",
            counts.max() / max(1, counts.min()),
        )
    log_empty(dataset)


class _Observer:
    """Passes what the estimator tells on to the display and the tracker."""

    def __init__(self, display: Display, tracker: tracking.Tracker, epochs: Callable[[], int]) -> None:
        self._display, self._tracker, self._epochs = display, tracker, epochs
        self.on_progress: Callable[[int, int], None] = display.on_progress
        self.check_interrupted: Callable[[], None] = display.check_interrupted

    def on_epoch(self, entry: dict[str, float], step: int) -> None:
        self._tracker.log(step, entry)
        # One more than were planned, where time was left after the last.
        self._display.on_epoch(entry, max(self._epochs(), int(entry["epoch"])))


def _finish(
    estimator: Estimator, name: str, run: RunFolder, progress: Progress, tracker: tracking.Tracker
) -> dict[str, Any]:
    """Export, measure what will be served on test (once), write report and spec."""
    dataset = estimator.dataset
    clock = estimator.clock
    with clock.part("export"):
        exported = estimator.export(run.export)
    engine = LiteRTEngine(run.export / artifact.MODEL_FILE)
    with clock.part("test"):
        outputs = predict_split(engine, dataset.test, "testing")
    probabilities = outputs[PROBABILITIES]
    test = metrics.evaluate(dataset.test.labels, probabilities)
    if not math.isfinite(test.loss):
        raise DivergedError("export: the test answers are not finite; nothing is published")
    trust = metrics.judge_trust(dataset.test.labels, outputs, exported.temperature, exported.threshold)
    mistakes = worst_mistakes(dataset.test, dataset.test.labels, probabilities, engine, run.export)
    judgement = advice.judge(
        advice.Facts(
            class_names=dataset.class_names,
            test=test,
            unseen=True,
            val=advice.Share.of(exported.val_accuracy, len(dataset.val)),
            mislabelled=metrics.mislabelled(dataset.test.labels, probabilities),
            inspect=_inspect_command(estimator.config),
            training=_training(estimator, progress),
        )
    )
    subject = report.Subject(
        name=f"{name}, run {run.path.name}",
        dataset=dataset.spec,
        command=shlex.join(estimator.config.command()),
        class_names=dataset.class_names,
        tested="kept apart for this figure",
        trained_on=dataset.spec,
        train_images=len(dataset.train),
        val_images=len(dataset.val),
        val_accuracy=exported.val_accuracy,
        judgement=judgement,
        trust=trust,
        asked={flag(option): text for option, text in estimator.config.changed().items()},
        settings=_settings(estimator),
        seconds=clock.spent_s | {"all": clock.elapsed_s},
        model_bytes=(run.export / artifact.MODEL_FILE).stat().st_size,
        answer_s=measure_answer(engine, dataset.test),
    )
    log.info("writing the report")
    with clock.part("report"):
        files = report.write(
            run.report,
            subject,
            evaluation=test,
            history=progress.history,
            curve=estimator.learning_curve,
            mistakes=mistakes,
        )
    shutil.copytree(run.report, run.export / "report", dirs_exist_ok=True)
    tracker.log_report(files, mistakes, dataset.class_names, test)
    DataIdentity.of(dataset, probabilities.argmax(1)).save(run.export)
    figures = {
        "val_accuracy": exported.val_accuracy,
        "val_accuracy_interval": list(metrics.accuracy_interval(exported.val_accuracy, len(dataset.val))),
        "test_accuracy": test.accuracy,
        "test_accuracy_interval": list(test.accuracy_interval),
        "guess_accuracy": test.guess_accuracy,
        "test_loss": test.loss,
        "calibration_error": test.calibration_error,
        **asdict(trust),
        "int8_agreement": exported.gate.agreement if exported.gate else None,
        "quantization": exported.quantization,
    }
    artifact.write_spec(
        run.export,
        class_names=dataset.class_names,
        pixels=dataset.pixels,
        dataset=dataset.spec,
        config=estimator.config.decisive()
        | asdict(estimator.recipe)
        | {"model": estimator.architecture.name, "data_dir": _data_dir(dataset.spec, estimator.config)},
        metrics=figures,
        quantization=exported.quantization,
        temperature=exported.temperature,
        threshold=exported.threshold,
        versions=library_versions(),
        git_revision=git_revision(),
    )
    return figures | asdict(judgement) | {"seconds": clock.spent_s | {"all": clock.elapsed_s}}


def _training(estimator: Estimator, progress: Progress) -> advice.Training:
    """What the run tells about itself."""
    config, dataset, architecture = estimator.config, estimator.dataset, estimator.architecture
    cache = dataset.train.cache
    end: Literal["all epochs", "no better", "no time"] = "no time"
    if progress.epochs - progress.best_step // estimator.plan.steps_per_epoch >= estimator.plan.patience:
        end = "no better"
    elif progress.step >= estimator.longest.total_steps:
        end = "all epochs"
    return advice.Training(
        config=config,
        learning_rate=estimator.recipe.learning_rate,
        usual_learning_rate=architecture.recipe.learning_rate,
        pretrained=architecture.features is not None or config.weights == "imagenet",
        auto_is_pretrained=suggest(cache.sizes.keys(), dataset.pixels.normalize).features is not None,
        history=progress.history,
        steps=progress.step,
        steps_per_epoch=estimator.plan.steps_per_epoch,
        end=end,
        images=dataset.train.counts,
        limited=len(cache) - sum(map(len, (dataset.train, dataset.val, dataset.test))),
        unreadable=len(dataset.rejected),
        curve=estimator.learning_curve,
        wrong_labels=advice.Share(*estimator.wrong_labels) if estimator.wrong_labels else None,
    )


def _inspect_command(config: FitConfig) -> str:
    place = [f"--data-dir={config.data_dir}"] if config.data_dir else []
    return shlex.join(["trainer", "data", "inspect", config.dataset, *place])


def _settings(estimator: Estimator) -> dict[str, str]:
    """The options that nobody asked for, as what they became."""
    config, pixels = estimator.config, estimator.dataset.pixels
    values = {name: getattr(config, name) for name in options(config)} | asdict(estimator.recipe)
    values |= {
        "model": estimator.architecture.name,
        "image_size": (pixels.height, pixels.width),
        "epochs": estimator.plan.epochs,
        "batch_size": estimator.plan.batch_size,
        "normalize": pixels.normalize,
        "augment": estimator.recipe.default_augment if config.augment == "auto" else config.augment,
        "flip": "on" if estimator.flips else "off",
        "precision": estimator.precision,
    }
    asked = config.changed()
    return {
        flag(name): one.spell(values[name])
        for name, one in options(config).items()
        if one.affects_result and values[name] is not None and name not in asked
    }


def _data_dir(spec: str, config: FitConfig) -> str | None:
    """Where `evaluate` finds the data set again; None where the spec says it."""
    return str(data_root(config.data_dir).absolute()) if spec.startswith("tfds:") else None


def library_versions() -> dict[str, str]:
    """Of what decides the artifact's contents."""
    packages = ("trainer", "tensorflow", "keras", "ai-edge-litert", "pillow", "numpy")
    return {"python": platform.python_version()} | {package: version(package) for package in packages}


def git_revision() -> str | None:
    """Of the current folder, where it is a git checkout."""
    try:
        done = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None
