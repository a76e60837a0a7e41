"""Training step: gradients on every device, all-reduced, clipped and applied; many steps in one call."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from trainer.data import Split

if TYPE_CHECKING:
    import tensorflow as tf


def make_train_steps(
    strategy: tf.distribute.Strategy,
    model: Any,
    optimizer: Any,
    *,
    batch_size: int,
    clip_norm: float,
    class_weights: NDArray[np.float32] | None,
) -> Any:
    """A `tf.function` (iterator, number of steps) → sums of loss and of correct predictions, float32 [2].

    `batch_size` is the global one, over all devices; `class_weights` float32 [K] weigh the loss of each class.
    """
    import tensorflow as tf

    variables = model.trainable_variables

    def replica_gradients(images: tf.Tensor, labels: tf.Tensor) -> tuple[list[tf.Tensor], tf.Tensor]:
        with tf.GradientTape() as tape:
            logits = tf.cast(model(images, training=True), tf.float32)
            losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
            if class_weights is not None:
                losses *= tf.gather(class_weights, labels)
            total = tf.reduce_sum(losses)
            # Divided by the global batch, so that summing over the devices gives the mean.
            loss = total / batch_size + tf.add_n([*model.losses, 0.0]) / strategy.num_replicas_in_sync
        correct = tf.reduce_sum(tf.cast(tf.argmax(logits, -1, tf.int32) == labels, tf.float32))
        return tape.gradient(loss, [v.value for v in variables]), tf.stack([total, correct])

    def step(images: Any, labels: Any) -> tf.Tensor:
        gradients, sums = strategy.run(replica_gradients, args=(images, labels))
        # Reduced here across replicas, not by the optimizer within each: clipping needs the norm of the whole batch.
        values = [v.value for v in variables]
        reduced = strategy.extended.batch_reduce_to(
            tf.distribute.ReduceOp.SUM, list(zip(gradients, values, strict=True))
        )
        local = [strategy.experimental_local_results(g)[0] for g in reduced]
        norm = tf.linalg.global_norm(local)
        # Most steps need no clipping, and multiplying every gradient by 1 would be a pass over memory.
        clipped = tf.cond(norm > clip_norm, lambda: [g * (clip_norm / norm) for g in local], lambda: list(local))
        optimizer.apply(clipped, variables)
        return strategy.reduce(tf.distribute.ReduceOp.SUM, sums, axis=None)

    @tf.function
    def train_steps(iterator: Any, count: tf.Tensor) -> tf.Tensor:
        sums = tf.zeros([2])
        for _ in tf.range(count):
            images, labels = next(iterator)
            sums += step(images, labels)
        return sums

    return train_steps


def balanced_weights(split: Split) -> NDArray[np.float32]:
    """Loss weights float32 [K], inversely proportional to the class counts, with mean 1 over `split`."""
    counts = np.maximum(split.counts, 1)
    return (len(split) / (len(counts) * counts)).astype(np.float32)
