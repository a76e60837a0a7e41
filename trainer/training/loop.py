"""The loop around the training steps: the head of a pretrained network, epochs, validation, checkpoints, the clock."""

from __future__ import annotations

import logging
import math
import time
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from trainer.data import augment_for, make_for_train
from trainer.data_checks import pre_fit
from trainer.errors import DivergedError, Interrupted, RunError
from trainer.features.extract import Features
from trainer.features.ood import REFERENCES
from trainer.features.warm_start import learning_curve, may_mirror, start_from_head
from trainer.runs.checkpoints import Checkpoints, Progress
from trainer.training.distribution import make_agreement
from trainer.training.optimizers import averaged
from trainer.training.throughput import Pace, announce, measure_pace
from trainer.training.train_step import balanced_weights, make_train_steps

if TYPE_CHECKING:
    import tensorflow as tf

    from trainer.training.estimator import Estimator

log = logging.getLogger("trainer")

# A call into the graph cannot be interrupted: short enough to answer a signal well within its 30 s.
MAX_CALL_SECONDS = 5.0
STEPS_PER_CALL = 20  # more gain nothing
CHECKPOINT_EVERY_S = 180.0  # what is lost at most where a machine fails
CURVE_S = 10.0  # at most, for what more images would bring
CURVE_SHARE = 0.05  # of what a time limit leaves for training


class Observer(Protocol):
    """What `train_and_evaluate` tells while it runs, and whom it asks whether to stop."""

    def on_progress(self, step: int, total_steps: int) -> None: ...

    def on_epoch(self, entry: dict[str, float], step: int) -> None: ...

    def check_interrupted(self) -> None:
        """Raise Interrupted once a signal has come."""


class TrainingLoop:
    """One training of an estimator's network, from its newest checkpoint to the plan's end."""

    def __init__(self, estimator: Estimator, checkpoints: Checkpoints, observer: Observer) -> None:
        self._estimator = estimator
        self._checkpoints = checkpoints
        self._observer = observer
        self._agree = make_agreement(estimator.strategy)
        self._saved_s = time.perf_counter()

    def run(self) -> Progress:
        """See `Estimator.train_and_evaluate`."""
        one = self._estimator
        pace = self._measure_pace()
        pretrained = one.architecture.features is not None
        if one.config.fine_tune == "none" and pretrained:
            one.plan = one.longest = one.plan.within(0)
        # Its head sees the training images twice, mirrored, too.
        images = 2 * len(one.dataset.train) + len(one.dataset.val)
        announce(pace, one.plan, pretrained_images=images if pretrained else 0)
        progress = self._start(pretrained, pace)
        balanced = one.config.class_weights == "balanced"
        train_steps = make_train_steps(
            one.strategy,
            one.model,
            one.optimizer,
            batch_size=one.plan.batch_size,
            clip_norm=one.config.clip_norm,
            class_weights=balanced_weights(one.dataset.train) if balanced else None,
        )
        iterator = iter(self._distribute(first_step=progress.step))
        steps = 1  # the first call is short: it shows how long a step takes
        traced = False
        while not self._is_over(progress):
            self._observer.on_progress(progress.step, one.plan.total_steps)
            end = min((progress.epochs + 1) * one.plan.steps_per_epoch, one.plan.total_steps)
            if progress.step < end:
                steps = min(steps, end - progress.step)
                seconds = self._call(train_steps, iterator, steps, progress)
                if traced:
                    pace.note_steps(steps, seconds)
                    self._follow(pace, progress)
                traced = True
                steps = _next_steps(steps, seconds, STEPS_PER_CALL)
                if time.perf_counter() - self._saved_s > CHECKPOINT_EVERY_S:
                    self._save(progress)
            else:
                self._save(progress)  # validation may need more memory than there is
                self._observer.on_epoch(self._end_epoch(progress, pace), progress.step)
                self._save(progress)
                self._follow(pace, progress)
            try:
                self._observer.check_interrupted()
            except Interrupted:
                self._save(progress)
                raise
        self._agree(0)  # waits: the chief may still be writing what the others read now
        self._checkpoints.restore_best(progress)
        if progress.best_step:  # the head alone has no average
            one.optimizer.finalize_variable_values(one.model.trainable_variables)
        return progress

    def _start(self, pretrained: bool, pace: Pace) -> Progress:
        """Where training begins: at the newest checkpoint, else with the head of a pretrained network, or nothing."""
        one = self._estimator
        start = Progress()
        if pretrained:
            features = Features(one.architecture, one.float32_model(), self._observer.check_interrupted)
            with one.clock.part("features"):
                head_start = start_from_head(features, one.dataset, one.config)
            one.model.layers[-1].kernel.assign(head_start.head.kernel)
            one.model.layers[-1].bias.assign(head_start.head.bias)
            start, one.flips = head_start.progress, head_start.flips
            if one.chief:
                budget_s = min(CURVE_S, CURVE_SHARE * (one.clock.left_s - pace.closing_s))
                with one.clock.part("what more images would bring"):
                    one.learning_curve = learning_curve(head_start.plain, features, one.dataset, one.config, budget_s)
            if one.chief and pre_fit.can_afford(one.dataset, one.clock.left_s):
                with one.clock.part("features"):
                    seen = (features.of(split) for split in (one.dataset.train, one.dataset.val))
                    one.wrong_labels = pre_fit.count_wrong_labels(one.dataset, *seen)
        elif one.flips and one.config.flip == "auto":
            with one.clock.part("features"):
                one.flips = may_mirror(one.dataset, self._observer.check_interrupted)
        progress = self._checkpoints.restore_latest()
        if progress is None:
            if pretrained:
                self._observer.on_epoch(start.history[0], 0)
                self._save(start)
            return start
        if progress.step:
            log.info("continuing at step %d of %d", progress.step, one.plan.total_steps)
        return progress

    def _measure_pace(self) -> Pace:
        one = self._estimator
        log.info("measuring how fast the network is here")
        count = min(len(one.dataset.train), one.plan.batch_size)
        images = one.dataset.train.read(np.arange(count))
        return measure_pace(
            one.clock,
            lambda: one.predict_step(images).numpy(),
            count,
            parameters=one.model.count_params(),
            val_images=len(one.dataset.val),
            # The export asks for the features of some training images, too.
            test_images=len(one.dataset.test) + (REFERENCES if one.architecture.features else 0),
            plan=one.plan,
        )

    def _follow(self, pace: Pace, progress: Progress) -> None:
        """Plan anew what is left, where there is a time limit."""
        one = self._estimator
        if one.clock.limit_s is not None:
            affordable = int(self._agree(pace.affordable_steps(one.plan.steps_per_epoch)))
            one.plan = one.longest.within(progress.step + affordable)
            one.optimizer.schedule.follow(one.plan)

    def _is_over(self, progress: Progress) -> bool:
        one = self._estimator
        epochs = progress.epochs
        if progress.step >= one.plan.total_steps and not progress.running[2]:
            return True
        if epochs - progress.best_step // one.plan.steps_per_epoch >= one.plan.patience:
            log.info("stopped early: no better validation accuracy in %d epochs", one.plan.patience)
            return True
        return False

    def _save(self, progress: Progress) -> None:
        if self._estimator.chief:
            self._checkpoints.save(progress)
        self._saved_s = time.perf_counter()

    def _distribute(self, first_step: int) -> Any:
        """The training batches of this worker, one element for each of its devices in turn."""
        one = self._estimator

        def make(context: tf.distribute.InputContext) -> tf.data.Dataset:
            batches = make_for_train(
                one.dataset.train,
                batch_size=one.plan.batch_size,
                seed=one.config.seed,
                augment=augment_for(
                    one.dataset, one.config.augment, default=one.recipe.default_augment, flips=one.flips
                ),
                first_step=first_step,
                shard=(context.input_pipeline_id, context.num_input_pipelines),
            )
            return batches.rebatch(one.plan.batch_size // one.strategy.num_replicas_in_sync)

        return one.strategy.distribute_datasets_from_function(make)

    def _call(self, train_steps: Any, iterator: Any, steps: int, progress: Progress) -> float:
        """Run `steps` training steps, add them to `progress`; the seconds they took."""
        one = self._estimator
        import tensorflow as tf

        start = time.perf_counter()
        try:
            with one.clock.part("training"):
                loss, right = train_steps(iterator, tf.constant(steps)).numpy().tolist()
        except (tf.errors.UnavailableError, tf.errors.AbortedError, tf.errors.DeadlineExceededError) as error:
            raise RunError(f"another worker was lost; start all workers again to resume: {error.message}") from error
        seconds = self._agree(time.perf_counter() - start)
        if not math.isfinite(loss):
            raise DivergedError(
                f"the loss is not finite (step {progress.step + 1} to {progress.step + steps}): nothing is "
                f"published; try a smaller --learning-rate than {one.recipe.learning_rate:g}"
            )
        progress.step += steps
        images = steps * one.plan.batch_size
        for index, value in enumerate((loss, right, images, seconds)):
            progress.running[index] += value
        return seconds

    def _end_epoch(self, progress: Progress, pace: Pace) -> dict[str, float]:
        """Validate; the epoch's entry of the history."""
        one = self._estimator
        loss, right, images, seconds = progress.running
        start = time.perf_counter()
        with one.clock.part("validation"), averaged(one.optimizer, one.model):
            evaluation = one.evaluate(one.dataset.val)
        pace.note_validation(time.perf_counter() - start)
        if not math.isfinite(evaluation.loss):
            raise DivergedError(
                "the validation loss is not finite: nothing is published; try a smaller --learning-rate"
            )
        entry = {
            "epoch": progress.epochs + 1,
            "loss": loss / images,
            "accuracy": right / images,
            "val_loss": evaluation.loss,
            "val_accuracy": evaluation.accuracy,
            "learning_rate": float(one.optimizer.learning_rate),
            "seconds": seconds,
            "images_per_second": images / seconds,
        }
        progress.history.append(entry)
        progress.running = [0.0] * 4
        # Few validation images often give two epochs the same accuracy.
        best = (progress.best_accuracy, -progress.best_loss)
        if (evaluation.accuracy, -evaluation.loss) > best:
            progress.best_accuracy, progress.best_loss = evaluation.accuracy, evaluation.loss
            progress.best_step = progress.step
        return entry


def _next_steps(steps: int, seconds: float, limit: int) -> int:
    """As many steps as fit in MAX_CALL_SECONDS, growing step by step: the first call includes tracing."""
    affordable = int(MAX_CALL_SECONDS * steps / max(seconds, 1e-9))
    return max(1, min(limit, affordable, 4 * steps))
