"""The Estimator: train_and_evaluate, evaluate, predict and export over a native TensorFlow loop.

The loop is a `tf.function` of many steps under a `tf.distribute` strategy. The same code runs on one device,
on several (MirroredStrategy) and on several machines (MultiWorkerMirroredStrategy, from TF_CONFIG).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from trainer.config import FitConfig
from trainer.data import make_for_eval
from trainer.data.progress import track
from trainer.export.export import Exported, export
from trainer.machine import evaluation_batch, resolve_precision
from trainer.models import build, choose_architecture
from trainer.reporting import metrics
from trainer.reporting.learning_curve import LearningCurve
from trainer.runs.checkpoints import Checkpoints, Progress
from trainer.training.distribution import is_chief, make_strategy
from trainer.training.loop import Observer, TrainingLoop
from trainer.training.optimizers import make_optimizer
from trainer.training.plan import make_plan
from trainer.training.timer import Clock

if TYPE_CHECKING:
    import keras
    import tensorflow as tf

    from trainer.data import Dataset, Split


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
        self.architecture = choose_architecture(config, sizes, dataset.pixels.normalize)
        self.recipe = config.recipe(self.architecture.recipe)
        self.precision = resolve_precision(config.precision, cpu_gains=self.architecture.bfloat16_on_cpu)
        self.dataset = dataset
        self.clock = clock or Clock(config.time_limit)
        self.flips = config.flip != "off" and not dataset.digits  # auto finds out in training
        self.learning_curve: LearningCurve | None = None  # training measures it, where the network has features
        self.wrong_labels: tuple[int, int] | None = None  # so many of so many, where training has looked
        self.strategy = strategy or make_strategy()
        self.chief = is_chief(self.strategy)
        self.plan = self.longest = make_plan(
            config, self.recipe, len(dataset.train), self.strategy.num_replicas_in_sync
        )
        pixels = dataset.pixels
        self._build: Callable[[], keras.Model] = lambda: build(
            self.architecture.name,
            input_shape=(pixels.height, pixels.width, pixels.channels),
            classes=len(dataset.class_names),
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
        self.predict_step = tf.function(
            lambda images: tf.nn.softmax(tf.cast(self.model(images, training=False), tf.float32)),
            input_signature=[tf.TensorSpec([None, *self.model.input_shape[1:]], tf.uint8)],
        )

    def train_and_evaluate(self, checkpoints: Checkpoints, observer: Observer) -> Progress:
        """Train to the plan's end, validate after each epoch, keep checkpoints; leave the best weights in place.

        A pretrained network has its head first. Continues from the newest checkpoint where there is one. Raises
        InputError for a time limit that is too short, Interrupted after a signal (with a
        checkpoint) and RunError where the loss is not finite or another worker is lost.
        """
        return TrainingLoop(self, checkpoints, observer).run()

    def evaluate(self, split: Split) -> metrics.Evaluation:
        """Compare the predictions for `split` with its labels."""
        return metrics.evaluate(split.labels, self.predict(split))

    def predict(self, split: Split) -> NDArray[np.float32]:
        """Probabilities float32 [len(split), K], in order."""
        height, width, _ = split.shape
        batch_size = evaluation_batch(height, width)
        batches = track(
            make_for_eval(split, batch_size=batch_size),
            lambda batch: len(batch[0]),
            total=len(split),
            what="validating",
            bar=False,  # a terminal has that of the training
        )
        return np.concatenate([self.predict_step(images).numpy() for images, _ in batches])

    def export(self, folder: Path) -> Exported:
        """Calibrate, freeze and quantise the network into `folder`, behind the gate; see `trainer.export.export`."""
        return export(
            self.float32_model(),
            self.dataset,
            folder,
            self.config.quantize,
            features=self.architecture.features,
            confidence=self.config.confidence,
            clock=self.clock,
        )

    def float32_model(self) -> Any:
        """The network in float32 with the trained weights, on one device: what is exported."""
        if self.precision == "float32" and self.strategy.num_replicas_in_sync == 1:
            return self.model
        model = self._build()
        model.set_weights(self.model.get_weights())
        return model
