"""Training split → tf.data: endless, shuffled, augmented batches.

The remainder of an epoch is dropped; the next permutation brings it back. Evaluation keeps the order and every image:
see `trainer.data.batches`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from trainer.data.augment import DRAWS
from trainer.data.threads import until_exit
from trainer.machine import available_cpus, memory_budget

if TYPE_CHECKING:
    import tensorflow as tf

    from trainer.data.augment import Augment
    from trainer.data.dataset import Split

    # Positions within a split, int64 [n] → images uint8 [n,H,W,C] and labels int32 [n].
    Gather = Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor]]

PREFETCH = 4  # batches: enough to even out the slow ones


def make_for_train(
    split: Split,
    *,
    batch_size: int,
    seed: int,
    augment: Augment | None,
    first_step: int = 0,
    shard: tuple[int, int] = (0, 1),
    memory_budget_bytes: int | None = None,
) -> tf.data.Dataset:
    """Infinite dataset of (images uint8 [b,H,W,C], labels int32 [b]), b = batch_size // shards.

    `batch_size` is the global batch, at most `len(split)` and a multiple of the shards. `shard` (index, count)
    takes a slice of each global batch: together, the shards see exactly the batches of a single one. The batch of a
    step depends on the seed and the step alone, so that `first_step` continues an interrupted training exactly. Images
    are held in memory if they fit `memory_budget_bytes` (default: `memory_budget`) and are not enlarged when read; else
    each batch is read from the cache's file, and memory stays flat for data of any size.
    """
    import tensorflow as tf

    steps_per_epoch = len(split) // batch_size
    index, count = shard
    share = batch_size // count
    own = slice(index * share, (index + 1) * share)
    seed = tf.constant(seed, tf.int64)
    budget_bytes = memory_budget() if memory_budget_bytes is None else memory_budget_bytes
    cache = split.cache
    in_memory = cache.stored == cache.pixels and cache.size_bytes <= budget_bytes
    gather = _gather_from_memory(split) if in_memory else _gather_from_file(split)

    def positions(step: tf.Tensor) -> tf.Tensor:
        """Positions within `split`, int64 [b]: this shard's slice of the batch in the epoch's permutation."""
        epoch, step_in_epoch = step // steps_per_epoch, step % steps_per_epoch
        ordinals = step_in_epoch * batch_size + tf.range(batch_size, dtype=tf.int64)[own]
        # tf.random.experimental.index_shuffle uses four rounds: the orders of successive epochs of 54,000 images then
        # correlate by 0.8. With sixteen the correlation is chance.
        key = tf.random.stateless_uniform([3], tf.stack([seed, epoch]), None, None, tf.uint32)
        last = tf.constant(len(split) - 1, tf.int64)
        return tf.raw_ops.RandomIndexShuffle(index=ordinals, seed=key, max_index=last, rounds=16)

    def batch(step: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        images, labels = gather(positions(step))
        if augment is None:
            return images, labels
        # Drawn for the whole batch, so that the augmentation of an image does not depend on the number of shards.
        draws = tf.random.stateless_uniform([batch_size, DRAWS], tf.stack([seed, step]), -1.0, 1.0)
        return augment(images, draws[own]), labels

    # The order matters: positions are shuffled, not images, so that no buffer is filled and any step can be the first;
    # batches are gathered and augmented whole, one call for each; the prefetch comes last, so that all of it runs in
    # parallel with the training step.
    steps = tf.data.Dataset.range(first_step, np.iinfo(np.int64).max)
    batches = steps.map(batch, num_parallel_calls=available_cpus(), deterministic=True).prefetch(PREFETCH)
    options = tf.data.Options()
    # With autotuning, the end of an iterator older than a minute waits up to another minute for its thread.
    options.autotune.enabled = False
    # The default optimizations have nothing to rewrite here, and would copy the images that are held in memory.
    options.experimental_optimization.apply_default_optimizations = False
    return batches.with_options(options)


def _gather_from_memory(split: Split) -> Gather:
    import tensorflow as tf

    with tf.device("CPU:0"):  # on a GPU they would take the network's memory, and tf.data would copy them back
        # Read by TensorFlow: tf.constant would hold a NumPy array three times for a moment.
        images = tf.io.decode_raw(tf.io.read_file(split.cache.file), tf.uint8)
        images = tf.reshape(images, [len(split.cache), *split.shape])
        rows, labels = tf.constant(split.indices), tf.constant(split.labels)
    return lambda positions: (tf.gather(images, tf.gather(rows, positions)), tf.gather(labels, positions))


def _gather_from_file(split: Split) -> Gather:
    import tensorflow as tf

    with tf.device("CPU:0"):
        labels = tf.constant(split.labels)
    read = until_exit(split.read)

    def gather(positions: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        images = tf.numpy_function(read, [positions], tf.uint8, stateful=False)
        images.set_shape([positions.shape[0], *split.shape])
        return images, tf.gather(labels, positions)

    return gather
