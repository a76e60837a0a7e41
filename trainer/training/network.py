"""The network with its optimizer on the devices of a `tf.distribute` strategy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from trainer.artifact.engine import PROBABILITIES
from trainer.machine import resolve_precision
from trainer.models import build
from trainer.training.distribution import is_chief
from trainer.training.optimizers import make_optimizer
from trainer.training.settings import FitSettings

if TYPE_CHECKING:
    import keras
    import tensorflow as tf

    from trainer.data import Dataset


class Network:
    """Model and optimizer, built under `strategy` for the images and classes of `dataset`.

    Raises InputError for a model that does not take the images' size, or is too large.
    """

    def __init__(self, settings: FitSettings, dataset: Dataset, strategy: tf.distribute.Strategy) -> None:
        import keras
        import tensorflow as tf

        architecture, config = settings.architecture, settings.config
        self.strategy = strategy
        self.chief = is_chief(strategy)
        self.precision = resolve_precision(config.precision, cpu_gains=architecture.bfloat16_on_cpu)
        self._build_arguments: dict[str, Any] = {
            "name": architecture.name,
            "input_shape": dataset.train.shape,
            "classes": len(dataset.class_names),
            "dropout": settings.recipe.dropout,
            "kernel_size": config.kernel_size,
            "weights": config.weights,
        }
        keras.utils.set_random_seed(config.seed)
        policy = keras.config.dtype_policy()
        keras.config.set_dtype_policy("mixed_bfloat16" if self.precision == "bfloat16" else "float32")
        try:
            with strategy.scope():
                self.model: keras.Model = build(**self._build_arguments)
                self.optimizer = make_optimizer(config, settings.recipe, settings.plan)
                self.optimizer.build(self.model.trainable_variables)
        finally:
            keras.config.set_dtype_policy(policy)
        # Keras leaves the state of the dropout's random generator out of a model's checkpoint.
        generators = [v.value for v in self.model.variables if v.name == "seed_generator_state"]
        self.checkpoint = tf.train.Checkpoint(model=self.model, optimizer=self.optimizer, generators=generators)
        self._predict = tf.function(
            lambda images: tf.nn.softmax(tf.cast(self.model(images, training=False), tf.float32)),
            input_signature=[tf.TensorSpec([None, *self.model.input_shape[1:]], tf.uint8)],
        )

    def predict(self, images: NDArray[np.uint8]) -> dict[str, NDArray[np.float32]]:
        """Images uint8 [N,H,W,C] → `probabilities` float32 [N,K]."""
        return {PROBABILITIES: self._predict(images).numpy()}

    def set_last_layer(self, kernel: NDArray[np.float32], bias: NDArray[np.float32]) -> None:
        """Assign the weights of the last layer: kernel [F,K], bias [K]."""
        self.model.layers[-1].kernel.assign(kernel)
        self.model.layers[-1].bias.assign(bias)

    def start_from(
        self, weights: Sequence[NDArray[np.float32]], class_names: Sequence[str], own: Sequence[str]
    ) -> None:
        """Assign the `weights` of the same network for the classes `class_names`.

        Of the last layer, the columns are those of the same name among this network's `own` classes; a class that the
        other network lacks keeps its initial weights.
        """
        shared = [name for name in own if name in class_names]
        theirs = [list(class_names).index(name) for name in shared]
        ours = [list(own).index(name) for name in shared]
        for variable, value in zip(self.model.weights[:-2], weights[:-2], strict=True):
            variable.assign(value)
        for variable, value in zip(self.model.layers[-1].weights, weights[-2:], strict=True):  # kernel [F,K], bias [K]
            columns = variable.numpy()
            columns[..., ours] = value[..., theirs]
            variable.assign(columns)

    def float32_model(self) -> keras.Model:
        """The model in float32 on one device, with the trained weights: what is exported."""
        if self.precision == "float32" and self.strategy.num_replicas_in_sync == 1:
            return self.model
        model = build(**self._build_arguments)
        model.set_weights(self.model.get_weights())
        return model
