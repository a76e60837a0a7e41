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
from trainer.machine import resolve_precision
from trainer.models import build
from trainer.reporting import metrics
from trainer.training.checkpoints import Checkpoints, Progress
from trainer.training.distribution import is_chief, make_strategy, wait_for_all_workers
from trainer.training.evaluate import BATCH
from trainer.training.export import Exported, export
from trainer.training.optimizers import make_optimizer
from trainer.training.plan import make_plan
from trainer.training.train_steps import balanced_weights, make_train_steps

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

    def __init__(self, config: FitConfig, dataset: Dataset, strategy: tf.distribute.Strategy | None = None) -> None:
        import keras
        import tensorflow as tf

        self.config = config
        self.dataset = dataset
        self.strategy = strategy or make_strategy()
        self.chief = is_chief(self.strategy)
        self.precision = resolve_precision(config.precision)
        self.plan = make_plan(config, len(dataset.train), self.strategy.num_replicas_in_sync)
        pixels = dataset.pixels
        self._build: Callable[[], keras.Model] = lambda: build(
            config.model,
            input_shape=(pixels.height, pixels.width, pixels.channels),
            classes=len(dataset.labels),
            dropout=config.dropout,
            kernel_size=config.kernel_size,
        )
        keras.utils.set_random_seed(config.seed)
        policy = keras.config.dtype_policy()
        keras.config.set_dtype_policy("mixed_bfloat16" if self.precision == "bfloat16" else "float32")
        try:
            with self.strategy.scope():
                self.model = self._build()
                self.optimizer = make_optimizer(config, self.plan)
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
        """Train to the plan's epochs, validate after each, keep checkpoints; leave the best weights in place.

        Continues from the newest checkpoint where there is one. Raises Interrupted after a signal (with a
        checkpoint) and RunError where the loss is not finite or another worker is lost.
        """
        progress = checkpoints.restore_latest() or Progress()
        if progress.step:
            log.info("continuing at step %d of %d", progress.step, self.plan.total_steps)
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
        while not self._is_over(progress):
            observer.on_progress(progress.step, self.plan.total_steps)
            left = (len(progress.history) + 1) * self.plan.steps_per_epoch - progress.step
            if left:
                steps = min(steps, left)
                seconds = self._call(train_steps, iterator, steps, progress)
                steps = _next_steps(steps, seconds, STEPS_PER_CALL)
            else:
                observer.on_epoch(self._end_epoch(progress), progress.step)
                self._save(checkpoints, progress)
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
        batches = [self._predict_step(images).numpy() for images, _ in make_for_eval(split, batch_size=BATCH)]
        return np.concatenate(batches)

    def export(self, folder: Path) -> Exported:
        """Freeze and quantise the network into `folder`, behind the gate; see `trainer.training.export`."""
        return export(self.float32_model(), self.dataset.val, folder)

    def float32_model(self) -> Any:
        """The network in float32 with the trained weights, on one device: what is exported."""
        model = self._build()
        model.set_weights(self.model.get_weights())
        return model

    def _is_over(self, progress: Progress) -> bool:
        epochs = len(progress.history)
        if epochs >= self.plan.epochs:
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
                augment=augment_for(self.dataset, self.config.augment),
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
                f"published; try a smaller --learning-rate than {self.config.learning_rate:g}"
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
            "epoch": len(progress.history) + 1,
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
