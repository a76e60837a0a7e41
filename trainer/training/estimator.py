"""The Estimator: train_and_evaluate, evaluate, predict and export over a native TensorFlow loop.

The loop is a `tf.function` of many steps under a `tf.distribute` strategy. The same code runs on one device,
on several (MirroredStrategy) and on several machines (MultiWorkerMirroredStrategy, from TF_CONFIG).
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from trainer.config import FitConfig, Interrupted, RunError
from trainer.data import augment_for, make_for_eval, make_for_train
from trainer.machine import evaluation_batch, resolve_precision
from trainer.models import build, choose_architecture
from trainer.reporting import metrics
from trainer.training.checkpoints import Checkpoints, Progress
from trainer.training.clock import Clock
from trainer.training.distribution import is_chief, make_strategy, wait_for_all_workers
from trainer.training.export import Exported, export
from trainer.training.features import Features
from trainer.training.optimizers import make_optimizer
from trainer.training.pace import Pace, announce, measure_pace
from trainer.training.plan import make_plan
from trainer.training.train_steps import balanced_weights, make_train_steps
from trainer.training.transfer import start_from_head

if TYPE_CHECKING:
    import tensorflow as tf

    from trainer.data import Dataset, Split

log = logging.getLogger("trainer")

# A call into the graph cannot be interrupted: short enough to answer a signal well within its 30 s.
MAX_CALL_SECONDS = 5.0
STEPS_PER_CALL = 20  # more gain nothing


class Observer(Protocol):
    """What `train_and_evaluate` tells while it runs, and whom it asks whether to stop."""

    def on_progress(self, step: int, total_steps: int) -> None: ...

    def on_epoch(self, entry: dict[str, float], step: int) -> None: ...

    def check_interrupted(self) -> None:
        """Raise Interrupted once a signal has come."""


class Estimator:
    """The network for `dataset` with its optimizer, on the devices of `strategy`.

    Raises InputError for an unknown model, one that refuses the picture's size or is too large, or a batch
    that the devices cannot share evenly.
    """

    def __init__(
        self,
        config: FitConfig,
        dataset: Dataset,
        strategy: tf.distribute.Strategy | None = None,
        clock: Clock | None = None,
    ) -> None:
        import keras
        import tensorflow as tf

        self.config = config
        sizes = dataset.train.cache.sizes.keys()
        self.architecture = choose_architecture(config.model, config.weights, sizes, dataset.pixels.normalize)
        self.recipe = config.recipe(self.architecture.recipe)
        self.precision = resolve_precision(config.precision, cpu_gains=self.architecture.bfloat16_on_cpu)
        self.dataset = dataset
        self.clock = clock or Clock(config.time_limit)
        self.flips = config.flip != "off" and not dataset.digits  # a pretrained network may find out better
        self.strategy = strategy or make_strategy()
        self.chief = is_chief(self.strategy)
        self.plan = self._longest = make_plan(
            config, self.recipe, len(dataset.train), self.strategy.num_replicas_in_sync
        )
        pixels = dataset.pixels
        self._build: Callable[[], keras.Model] = lambda: build(
            self.architecture.name,
            input_shape=(pixels.height, pixels.width, pixels.channels),
            classes=len(dataset.labels),
            dropout=self.recipe.dropout,
            kernel_size=config.kernel_size,
            weights=config.weights,
        )
        keras.utils.set_random_seed(config.seed)
        policy = keras.config.dtype_policy()
        keras.config.set_dtype_policy("mixed_bfloat16" if self.precision == "bfloat16" else "float32")
        try:
            with self.strategy.scope():
                self.model = self._build()
                self.optimizer = make_optimizer(config, self.recipe, self.plan)
                self.optimizer.build(self.model.trainable_variables)
        finally:
            keras.config.set_dtype_policy(policy)
        # Keras leaves the state of the dropout's random generator out of a model's checkpoint.
        generators = [v.value for v in self.model.variables if v.name == "seed_generator_state"]
        self.checkpoint = tf.train.Checkpoint(model=self.model, optimizer=self.optimizer, generators=generators)
        self._predict_step = tf.function(
            lambda images: tf.nn.softmax(tf.cast(self.model(images, training=False), tf.float32)),
            input_signature=[tf.TensorSpec([None, *self.model.input_shape[1:]], tf.uint8)],
        )

    def train_and_evaluate(self, checkpoints: Checkpoints, observer: Observer) -> Progress:
        """Train to the plan's end, validate after each epoch, keep checkpoints; leave the best weights in place.

        A pretrained network has its head first. Continues from the newest checkpoint where there is one. Raises
        InputError for a time limit that is too short, Interrupted after a signal (with a
        checkpoint) and RunError where the loss is not finite or another worker is lost.
        """
        pace = self._measure_pace()
        pretrained = self.architecture.features is not None
        announce(pace, self.plan, pretrained_images=3 * len(self.dataset.train) if pretrained else 0)
        start = Progress()
        if pretrained:
            features = Features(self.architecture, self.float32_model(), observer.check_interrupted)
            start, self.flips = start_from_head(self.model, features, self.dataset, self.config)
        progress = checkpoints.restore_latest()
        if progress is None:
            progress = start
            if pretrained:
                observer.on_epoch(start.history[0], 0)
                self._save(checkpoints, start)
        elif progress.step:
            log.info("continuing at step %d of %d", progress.step, self.plan.total_steps)
        if self.config.fine_tune == "none" and pretrained:
            self.plan = self._longest = self.plan.within(0)
        balanced = self.config.class_weights == "balanced"
        train_steps = make_train_steps(
            self.strategy,
            self.model,
            self.optimizer,
            batch_size=self.plan.batch_size,
            clip_norm=self.config.clip_norm,
            class_weights=balanced_weights(self.dataset.train) if balanced else None,
        )
        iterator = iter(self._distribute(first_step=progress.step))
        steps = 1  # the first call is short: it shows how long a step takes
        traced = False
        while not self._is_over(progress):
            observer.on_progress(progress.step, self.plan.total_steps)
            end = min((progress.epochs + 1) * self.plan.steps_per_epoch, self.plan.total_steps)
            if progress.step < end:
                steps = min(steps, end - progress.step)
                seconds = self._call(train_steps, iterator, steps, progress)
                if traced:
                    pace.note_steps(steps, seconds)
                    self._follow(pace, progress)
                traced = True
                steps = _next_steps(steps, seconds, STEPS_PER_CALL)
            else:
                observer.on_epoch(self._end_epoch(progress), progress.step)
                self._save(checkpoints, progress)
                self._follow(pace, progress)
            try:
                observer.check_interrupted()
            except Interrupted:
                self._save(checkpoints, progress)
                raise
        wait_for_all_workers(self.strategy)  # the chief may still be writing what the others read now
        checkpoints.restore_best(progress)
        return progress

    def evaluate(self, split: Split) -> metrics.Evaluation:
        """Compare the predictions for `split` with its labels."""
        return metrics.evaluate(split.labels, self.predict(split))

    def predict(self, split: Split) -> NDArray[np.float32]:
        """Probabilities float32 [len(split), K], in order."""
        height, width, _ = split.shape
        batch_size = evaluation_batch(height, width)
        batches = [self._predict_step(images).numpy() for images, _ in make_for_eval(split, batch_size=batch_size)]
        return np.concatenate(batches)

    def export(self, folder: Path) -> Exported:
        """Freeze and quantise the network into `folder`, behind the gate; see `trainer.training.export`."""
        return export(self.float32_model(), self.dataset.val, folder, self.config.quantize)

    def float32_model(self) -> Any:
        """The network in float32 with the trained weights, on one device: what is exported."""
        model = self._build()
        model.set_weights(self.model.get_weights())
        return model

    def _measure_pace(self) -> Pace:
        count = min(len(self.dataset.train), self.plan.batch_size)
        images = self.dataset.train.read(np.arange(count))
        return measure_pace(
            self.clock,
            lambda: self._predict_step(images).numpy(),
            count,
            parameters=self.model.count_params(),
            val_images=len(self.dataset.val),
            test_images=len(self.dataset.test),
            plan=self.plan,
        )

    def _follow(self, pace: Pace, progress: Progress) -> None:
        """Plan anew what is left, where there is a time limit."""
        if self.clock.limit_s is not None:
            self.plan = self._longest.within(progress.step + pace.affordable_steps(self.plan.steps_per_epoch))
            self.optimizer.schedule.follow(self.plan)

    def _is_over(self, progress: Progress) -> bool:
        epochs = progress.epochs
        if progress.step >= self.plan.total_steps and not progress.running[2]:
            return True
        if epochs - progress.best_step // self.plan.steps_per_epoch >= self.plan.patience:
            log.info("stopped early: no better validation accuracy in %d epochs", self.plan.patience)
            return True
        return False

    def _save(self, checkpoints: Checkpoints, progress: Progress) -> None:
        if self.chief:
            checkpoints.save(progress)

    def _distribute(self, first_step: int) -> Any:
        """The training batches of this worker, one element for each of its devices in turn."""

        def make(context: tf.distribute.InputContext) -> tf.data.Dataset:
            batches = make_for_train(
                self.dataset.train,
                batch_size=self.plan.batch_size,
                seed=self.config.seed,
                augment=augment_for(self.dataset, self.config.augment, flips=self.flips),
                first_step=first_step,
                shard=(context.input_pipeline_id, context.num_input_pipelines),
            )
            return batches.rebatch(self.plan.batch_size // self.strategy.num_replicas_in_sync)

        return self.strategy.distribute_datasets_from_function(make)

    def _call(self, train_steps: Any, iterator: Any, steps: int, progress: Progress) -> float:
        """Run `steps` training steps, add them to `progress`; the seconds they took."""
        import tensorflow as tf

        start = time.perf_counter()
        try:
            loss, right = train_steps(iterator, tf.constant(steps)).numpy().tolist()
        except (tf.errors.UnavailableError, tf.errors.AbortedError, tf.errors.DeadlineExceededError) as error:
            raise RunError(f"another worker was lost; start all workers again to resume: {error.message}") from error
        seconds = time.perf_counter() - start
        if not math.isfinite(loss):
            raise RunError(
                f"the loss is not finite (step {progress.step + 1} to {progress.step + steps}): nothing is "
                f"published; try a smaller --learning-rate than {self.recipe.learning_rate:g}"
            )
        progress.step += steps
        images = steps * self.plan.batch_size
        for index, value in enumerate((loss, right, images, seconds)):
            progress.running[index] += value
        return seconds

    def _end_epoch(self, progress: Progress) -> dict[str, float]:
        """Validate; the epoch's entry of the history."""
        loss, right, images, seconds = progress.running
        evaluation = self.evaluate(self.dataset.val)
        if not math.isfinite(evaluation.loss):
            raise RunError("the validation loss is not finite: nothing is published; try a smaller --learning-rate")
        entry = {
            "epoch": progress.epochs + 1,
            "loss": loss / images,
            "accuracy": right / images,
            "val_loss": evaluation.loss,
            "val_accuracy": evaluation.accuracy,
            "learning_rate": float(self.optimizer.learning_rate),
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
