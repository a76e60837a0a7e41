"""Refusal of options that a network, or the training of its last layer only, would ignore."""

from __future__ import annotations

from trainer.config import FitConfig, Recipe
from trainer.errors import InputError
from trainer.models import ARCHITECTURES, Architecture
from trainer.models.applications import PREFIX
from trainer.option_fields import flag

# The last layer alone is solved exactly from features in float32.
UNUSED_BY_LAST_LAYER = (
    *("epochs", "batch_size", "learning_rate", "optimizer", "weight_decay", "dropout", "augment", "precision"),
)
TRUE_OF_LAST_LAYER = {"augment": "none", "precision": "float32"}


def refuse_unused_options(config: FitConfig, architecture: Architecture, recipe: Recipe) -> None:
    """Raise InputError for the first option that would change nothing."""
    given = config.changed_options()
    model = f"--model {architecture.name}"
    if config.fine_tune == "none" and architecture.features is None:
        pretrained = " and ".join(name for name, other in ARCHITECTURES.items() if other.features)
        raise InputError(f"--fine-tune none: {model} has no pretrained features; {pretrained} have; leave one out")
    if config.weights == "imagenet" and architecture.features is None and not architecture.name.startswith(PREFIX):
        raise InputError(f"--weights imagenet: {model} has no pretrained weights; leave one out")
    if "kernel_size" in given and not architecture.has_kernel_size:
        raise InputError(f"--kernel-size: {model} has its own; leave one out")
    if config.fine_tune == "none":
        for name in UNUSED_BY_LAST_LAYER:
            if name in given and given[name] != TRUE_OF_LAST_LAYER.get(name):
                raise InputError(f"{flag(name)}: --fine-tune none does not use it; leave one out")
    if config.weight_decay and recipe.optimizer == "adam":
        raise InputError("--weight-decay: --optimizer adam has none; adamw or sgd is expected")
