"""The training loop: epochs of native TensorFlow steps, validation, checkpoints and the time limit."""

from __future__ import annotations

import logging
import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainer.artifact.engine import PROBABILITIES
from trainer.data import Dataset
from trainer.data.batches import predict_batches
from trainer.errors import DivergedError, Interrupted, RunError
from trainer.reporting import metrics
from trainer.reporting.learning_curve import LearningCurve
from trainer.runs.checkpoints import Checkpoints, End, Progress
from trainer.signals import Signals
from trainer.training.callbacks import Callbacks
from trainer.training.distribution import distribute_batches, make_agreement
from trainer.training.network import Network
from trainer.training.optimizers import averaged_weights
from trainer.training.plan import Plan
from trainer.training.settings import FitSettings
from trainer.training.throughput import Throughput
from trainer.training.train_step import balanced_weights, make_train_steps

if TYPE_CHECKING:
    pass

log = logging.getLogger("trainer")

# A call into the graph cannot be interrupted, so it is short: a signal must be answered well within 30 s.
MAX_CALL_SECONDS = 5.0
STEPS_PER_CALL = 20  # a larger number gains nothing
CHECKPOINT_EVERY_S = 180.0  # the longest training that is lost if a machine fails


@dataclass(frozen=True)
class Start:
    """The state before the first step: linear probe, flips, and the checks of the images."""

    progress: Progress  # with the linear probe of a pretrained network as epoch 0
    flips: bool  # whether training images are mirrored at random
    curve: LearningCurve | None = None
    label_issues: tuple[int, int] | None = None  # (label issues found, images checked)


@dataclass(frozen=True)
class TrainResult:
    """Outcome of a training; the network has the best weights."""

    progress: Progress
    plan: Plan  # the final plan, adapted to the time limit
    end: End


def train(
    network: Network,
    dataset: Dataset,
    settings: FitSettings,
    start: Start,
    checkpoints: Path,
    callbacks: Callbacks,
    throughput: Throughput,
    signals: Signals,
) -> TrainResult:
    """Train to the end of the plan, validate after each epoch, keep checkpoints, and restore the best weights.

    Continues from the newest checkpoint in the folder `checkpoints` if there is one, else from `start`. A training that
    has ended is never continued, even if the time limit leaves time. Raises Interrupted after a signal (with a
    checkpoint), DivergedError if the loss is not finite, RunError if another worker is lost or the disk is full.
    """
    stored = Checkpoints(checkpoints, network.checkpoint)
    loop = _Loop(network, dataset, settings, stored, callbacks, throughput)
    try:
        return loop.run(start, signals)
    finally:
        callbacks.on_train_end()


class _Loop:
    """One training, from its newest checkpoint to the end of its plan."""

    def __init__(
        self,
        network: Network,
        dataset: Dataset,
        settings: FitSettings,
        checkpoints: Checkpoints,
        callbacks: Callbacks,
        throughput: Throughput,
    ) -> None:
        self._network, self._dataset, self._settings = network, dataset, settings
        self._checkpoints, self._callbacks = checkpoints, callbacks
        self._throughput, self._timer = throughput, throughput.timer
        self._plan = settings.plan
        self._mean = make_agreement(network.strategy)
        self._saved_s = time.perf_counter()

    def run(self, start: Start, signals: Signals) -> TrainResult:
        progress = self._restore(start.progress)
        network, config = self._network, self._settings.config
        train_steps = make_train_steps(
            network.strategy,
            network.model,
            network.optimizer,
            batch_size=self._plan.batch_size,
            clip_norm=config.clip_norm,
            class_weights=balanced_weights(self._dataset.train) if config.class_weights == "balanced" else None,
        )
        batches = distribute_batches(
            network.strategy, self._dataset, self._settings, first_step=progress.step, flips=start.flips
        )
        steps = 1  # the first call is short: it shows how long a step takes
        traced = False
        while not self._is_over(progress):
            self._callbacks.on_step(progress.step, self._plan.total_steps)
            end = min((progress.epochs + 1) * self._plan.steps_per_epoch, self._plan.total_steps)
            if progress.step < end:
                steps = min(steps, end - progress.step)
                seconds = self._run_steps(train_steps, batches, steps, progress)
                if traced:
                    self._throughput.note_steps(steps, seconds)
                    self._plan_again(progress)
                traced = True
                steps = _next_steps(steps, seconds)
                if time.perf_counter() - self._saved_s > CHECKPOINT_EVERY_S:
                    self._save(progress)
            else:
                self._save(progress)  # validation may need more memory than there is
                entry = self._end_epoch(progress)
                self._on_epoch(entry, progress)
                self._save(progress)
                self._plan_again(progress)
            try:
                signals.check_interrupted()
            except Interrupted:
                self._save(progress)
                raise
        progress.end = progress.end or self._reason(progress)
        self._save(progress)
        self._mean(0)  # waits for the chief, which may still be writing the checkpoint that the others read now
        self._checkpoints.restore_best(progress)
        if progress.best_step:  # the linear probe alone has no EMA of the weights
            self._network.optimizer.finalize_variable_values(self._network.model.trainable_variables)
        return TrainResult(progress, self._plan, progress.end)

    def _restore(self, start: Progress) -> Progress:
        progress = self._checkpoints.restore_latest()
        if progress is None:
            if start.history:
                self._on_epoch(start.history[0], start)
                self._save(start)
            return start
        if progress.end:
            log.info("the training ended at step %d: it is not repeated", progress.step)
            if progress.end == "no time":
                self._plan = self._plan.within(progress.step)
        elif progress.step:
            log.info("continuing at step %d of %d", progress.step, self._plan.total_steps)
        return progress

    def _run_steps(self, train_steps: Any, batches: Any, steps: int, progress: Progress) -> float:
        """Run `steps` training steps and add them to `progress`; return the seconds that they took."""
        import tensorflow as tf

        start = time.perf_counter()
        try:
            with self._timer.section("training"):
                loss, correct = train_steps(batches, tf.constant(steps)).numpy().tolist()
        except (tf.errors.UnavailableError, tf.errors.AbortedError, tf.errors.DeadlineExceededError) as error:
            raise RunError(f"another worker was lost; start all workers again to resume: {error.message}") from error
        seconds = self._mean(time.perf_counter() - start)
        if not math.isfinite(loss):
            raise DivergedError(
                f"the loss is not finite (step {progress.step + 1} to {progress.step + steps}): nothing is "
                f"published; try a smaller --learning-rate than {self._settings.recipe.learning_rate:g}"
            )
        progress.step += steps
        images = steps * self._plan.batch_size
        for index, value in enumerate((loss, correct, images, seconds)):
            progress.running[index] += value
        return seconds

    def _end_epoch(self, progress: Progress) -> dict[str, float]:
        """Validate, and return the epoch's entry of the history."""
        loss, correct, images, seconds = progress.running
        start = time.perf_counter()
        with self._timer.section("validation"), averaged_weights(self._network.optimizer, self._network.model):
            # No bar: a terminal already shows that of the training.
            outputs = predict_batches(self._network.predict, self._dataset.val, "validating", bar=False)
            evaluation = metrics.evaluate(self._dataset.val.labels, outputs[PROBABILITIES])
        self._throughput.note_validation(time.perf_counter() - start)
        if not math.isfinite(evaluation.loss):
            raise DivergedError(
                "the validation loss is not finite: nothing is published; try a smaller --learning-rate"
            )
        entry = {
            "epoch": progress.epochs + 1,
            "loss": loss / images,
            "accuracy": correct / images,
            "val_loss": evaluation.loss,
            "val_accuracy": evaluation.accuracy,
            "learning_rate": float(self._network.optimizer.learning_rate),
            "seconds": seconds,
            "images_per_second": images / seconds,
        }
        progress.end_epoch(entry)
        return entry

    def _on_epoch(self, entry: dict[str, float], progress: Progress) -> None:
        # One epoch more than planned, if time was left after the last one.
        self._callbacks.on_epoch(entry, step=progress.step, epochs=max(self._plan.epochs, progress.epochs))

    def _plan_again(self, progress: Progress) -> None:
        """Plan the remaining steps by the measured throughput, if there is a time limit."""
        if self._timer.limit_s is not None:
            affordable = int(self._mean(self._throughput.affordable_steps(self._plan.steps_per_epoch)))
            self._plan = self._settings.plan.within(progress.step + affordable)
            self._network.optimizer.schedule.follow(self._plan)

    def _is_over(self, progress: Progress) -> bool:
        if progress.end or (progress.step >= self._plan.total_steps and not progress.running[2]):
            return True
        if self._is_out_of_patience(progress):
            log.info("stopped early: no better validation accuracy in %d epochs", self._plan.patience)
            return True
        return False

    def _is_out_of_patience(self, progress: Progress) -> bool:
        return progress.epochs - progress.best_step // self._plan.steps_per_epoch >= self._plan.patience

    def _reason(self, progress: Progress) -> End:
        if self._is_out_of_patience(progress):
            return "no better"
        return "all epochs" if progress.step >= self._settings.plan.total_steps else "no time"

    def _save(self, progress: Progress) -> None:
        if self._network.chief:
            self._checkpoints.save(progress)
        self._saved_s = time.perf_counter()


def _next_steps(steps: int, seconds: float) -> int:
    """Steps of the next call: what fits in MAX_CALL_SECONDS, at most STEPS_PER_CALL and 4 times the last `steps`."""
    affordable = int(MAX_CALL_SECONDS * steps / max(seconds, 1e-9))
    return max(1, min(STEPS_PER_CALL, affordable, 4 * steps))
