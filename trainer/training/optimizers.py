"""The optimizers and their learning-rate schedule."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from trainer.config import FitConfig, Recipe
from trainer.training.plan import Plan


def make_optimizer(config: FitConfig, recipe: Recipe, plan: Plan) -> Any:
    """AdamW, Adam (without weight decay) or SGD with Nesterov momentum, under a schedule that follows a changing plan.

    Weight decay is decoupled (Loshchilov and Hutter, 2019) and leaves biases and normalisation out.
    Where the recipe asks for it, the optimizer keeps an EMA of the weights (Polyak and Juditsky, 1992): see
    `averaged_weights`.
    """
    import keras

    from trainer.training.fused_adam import FusedAdam
    from trainer.training.schedule import WarmupCosine

    schedule = WarmupCosine(recipe.learning_rate, config.final_learning_rate * recipe.learning_rate)
    schedule.follow(plan)
    average = {"use_ema": recipe.weight_average > 0, "ema_momentum": recipe.weight_average}
    if recipe.optimizer == "sgd":
        optimizer = keras.optimizers.SGD(
            schedule, momentum=config.momentum, nesterov=True, weight_decay=recipe.weight_decay, **average
        )
    else:
        decay = recipe.weight_decay if recipe.optimizer == "adamw" else None
        optimizer = FusedAdam(schedule, weight_decay=decay, **average)
    if optimizer.weight_decay is not None:
        optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    optimizer.schedule = schedule
    return optimizer


@contextmanager
def averaged_weights(optimizer: Any, model: Any) -> Iterator[None]:
    """Use the EMA of the weights, where the optimizer keeps one, and restore the trained weights at the end."""
    if not optimizer.use_ema:
        yield
        return
    current = [variable.numpy() for variable in model.trainable_variables]
    optimizer.finalize_variable_values(model.trainable_variables)
    try:
        yield
    finally:
        for variable, value in zip(model.trainable_variables, current, strict=True):
            variable.assign(value)
