"""Splits → tf.data. Training and evaluation are two functions: they want opposite things.

Training never ends, shuffles, augments and drops nothing but an epoch's remainder (which the next permutation
brings back); evaluation keeps the order and every image.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import tensorflow as tf

    from trainer.data.augment import Augment
    from trainer.data.dataset import Split

MEMORY_SHARE = 4  # images are held in memory up to this part of it


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
    """An infinite dataset of (images [b,H,W,C], labels int32 [b]), b = batch_size // shards.

    `batch_size` is the global batch, at most `len(split)`. Images are uint8, or float32 in 0..255 where `augment`
    changes them. `shard` (index, count) takes a slice of each global batch: the shards see together exactly the
    batches of one. The batch of a step depends on seed and step alone, so that `first_step` continues an
    interrupted training as if nothing had happened.
    """
    import tensorflow as tf

    steps_per_epoch = len(split) // batch_size
    index, count = shard
    share = batch_size // count

    def positions(step: tf.Tensor) -> tf.Tensor:
        """Positions within `split` of this shard's part of a batch, from the epoch's permutation."""
        epoch, within = step // steps_per_epoch, step % steps_per_epoch
        ordinal = within * batch_size + index * share + tf.range(share, dtype=tf.int64)
        key = tf.stack([tf.constant(seed, tf.int64), epoch])
        return tf.random.experimental.index_shuffle(ordinal, key, max_index=len(split) - 1)

    # Order: shuffle numbers, not images (nothing is held for it); gather whole batches (one copy); augment
    # batches (one kernel call); prefetch last, so that all of it runs beside the training step.
    steps = tf.data.Dataset.range(first_step, np.iinfo(np.int64).max)
    gather = _gather(split, memory_budget_bytes)
    batches = steps.map(
        lambda step: (step, *gather(positions(step))), num_parallel_calls=tf.data.AUTOTUNE, deterministic=True
    )
    if augment is None:
        batches = batches.map(lambda step, images, labels: (images, labels))
    else:
        batches = batches.map(
            lambda step, images, labels: (
                augment(images, tf.stack([tf.constant(seed, tf.int64), step * count + index])),
                labels,
            ),
            num_parallel_calls=tf.data.AUTOTUNE,
            deterministic=True,
        )
    return batches.prefetch(4)


def make_for_eval(split: Split, *, batch_size: int, memory_budget_bytes: int | None = None) -> tf.data.Dataset:
    """(images uint8 [b,H,W,C], labels int32 [b]) in order, each image once, the last batch as large as it is."""
    import tensorflow as tf

    positions = tf.data.Dataset.range(len(split)).batch(batch_size)
    gather = _gather(split, memory_budget_bytes)
    return positions.map(gather, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True).prefetch(2)


def _gather(split: Split, budget_bytes: int | None) -> Any:
    """A graph function: positions int64 [n] → (images uint8 [n,H,W,C], labels int32 [n]).

    In memory where the images fit the budget (default: a quarter of what this process may use); else each batch
    is read from the cache's file, so that memory stays flat however large the data is.
    """
    import tensorflow as tf

    labels = tf.constant(split.labels, tf.int32)
    if split.size_bytes <= (memory_budget() if budget_bytes is None else budget_bytes):
        images = tf.constant(split.read(np.arange(len(split))))

        def from_memory(positions: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            return tf.gather(images, positions), tf.gather(labels, positions)

        return from_memory

    def from_file(positions: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        batch = tf.numpy_function(split.read, [positions], tf.uint8, stateful=False)
        batch.set_shape([positions.shape[0], *split.shape])
        return batch, tf.gather(labels, positions)

    return from_file


def memory_budget() -> int:
    """Bytes of images that may be held in memory: a share of the machine's or the container's."""
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    for file in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            total = min(total, int(Path(file).read_text()))
        except (OSError, ValueError):  # no such version of cgroups, or "max"
            continue
    return total // MEMORY_SHARE
