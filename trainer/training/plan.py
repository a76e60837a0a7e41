"""A training in steps: what follows from the configuration and the amount of data."""

from __future__ import annotations

from dataclasses import dataclass

from trainer.config import FitConfig, InputError


@dataclass(frozen=True)
class Plan:
    """How many images a step takes, and how many steps there are."""

    batch_size: int  # global: over all devices and workers
    steps_per_epoch: int
    epochs: int  # at most
    warmup_steps: int  # at least 1
    patience: int  # epochs without a better validation accuracy before the run stops early

    @property
    def total_steps(self) -> int:
        return self.epochs * self.steps_per_epoch

    @property
    def images_per_epoch(self) -> int:
        """Without the remainder, which the next epoch's order brings back."""
        return self.batch_size * self.steps_per_epoch

    def seconds(self, seconds_per_step: float) -> float:
        """How long all steps take; validation and checkpoints come on top."""
        return self.total_steps * seconds_per_step


def make_plan(config: FitConfig, images: int, replicas: int = 1) -> Plan:
    """The plan for this many training images on `replicas` devices: the configured batch, or all of a smaller set.

    Raises InputError for a batch that the devices cannot share evenly.
    """
    batch_size = min(config.batch_size, images // replicas * replicas)
    if batch_size == 0 or batch_size % replicas:
        raise InputError(f"--batch-size: {config.batch_size} images cannot be shared evenly by {replicas} devices")
    steps_per_epoch = images // batch_size
    return Plan(
        batch_size=batch_size,
        steps_per_epoch=steps_per_epoch,
        epochs=config.epochs,
        warmup_steps=max(1, round(config.warmup_fraction * config.epochs * steps_per_epoch)),
        patience=config.patience,
    )
