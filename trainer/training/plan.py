"""Training plan in steps, from the configuration, the number of images, and the time limit."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

from trainer.config import MIN_STEPS_TO_LEARN, FitConfig, Recipe
from trainer.errors import InputError

MIN_STEPS_PER_EPOCH = 15  # without --batch-size: few images get a smaller batch, and so more steps
MIN_BATCH = 8
MIN_STEPS = 300  # in total, without --epochs
FROM_EARLIER = 3  # without --epochs, a network that starts from an earlier version has so many times fewer


@dataclass(frozen=True)
class Plan:
    """Batch size, number of steps and schedule of a training."""

    batch_size: int  # global: over all devices and workers
    steps_per_epoch: int  # training steps between two validations
    total_steps: int  # the last epoch may be shorter
    warmup_steps: int  # at least 1
    patience: int  # epochs without a better validation accuracy before the run stops early

    @property
    def epochs(self) -> int:
        """Number of epochs; the last one may be shorter."""
        return math.ceil(self.total_steps / self.steps_per_epoch)

    def seconds(self, seconds_per_step: float) -> float:
        """Duration of all steps, without validation and checkpoints."""
        return self.total_steps * seconds_per_step

    def within(self, steps: int) -> Plan:
        """The plan cut to at most `steps` steps, with as much less warm-up."""
        total = min(self.total_steps, steps)
        share = total / max(1, self.total_steps)
        return dataclasses.replace(self, total_steps=total, warmup_steps=max(1, round(share * self.warmup_steps)))


def make_plan(config: FitConfig, recipe: Recipe, images: int, replicas: int = 1) -> Plan:
    """The plan for `images` training images on `replicas` devices.

    Raises InputError for a batch that the devices cannot share evenly.
    """
    wanted = recipe.batch_size if config.batch_size else suitable_batch_size(images, recipe.batch_size)
    if not config.batch_size:
        wanted = max(1, wanted // replicas) * replicas
    batch_size = min(wanted, images // replicas * replicas)
    if batch_size == 0 or batch_size % replicas:
        raise InputError(f"--batch-size: {wanted} images cannot be shared evenly by {replicas} devices")
    steps_per_epoch = images // batch_size
    epochs = recipe.epochs
    if not config.epochs:
        epochs = max(epochs, math.ceil(MIN_STEPS / steps_per_epoch))
        if config.time_limit:
            epochs = max(epochs, recipe.timed_epochs)
        if config.start_from:
            epochs = max(1, epochs // FROM_EARLIER)
    total_steps = epochs * steps_per_epoch
    return Plan(
        batch_size=batch_size,
        steps_per_epoch=steps_per_epoch,
        total_steps=total_steps,
        warmup_steps=max(1, round(config.warmup_fraction * total_steps)),
        patience=max(config.patience, math.ceil(MIN_STEPS_TO_LEARN / steps_per_epoch)),
    )


def suitable_batch_size(images: int, most: int) -> int:
    """Largest power of two, from MIN_BATCH to `most`, that gives MIN_STEPS_PER_EPOCH steps where that is possible."""
    fitting = 2 ** int(math.log2(max(1, images // MIN_STEPS_PER_EPOCH)))
    return min(most, max(MIN_BATCH, fitting))
