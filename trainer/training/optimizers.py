"""The optimizers and their learning-rate schedule."""

from __future__ import annotations

from typing import Any

from trainer.config import FitConfig, Recipe
from trainer.training.plan import Plan


def make_optimizer(config: FitConfig, recipe: Recipe, plan: Plan) -> Any:
    """AdamW, Adam (without weight decay) or SGD with Nesterov momentum, under a schedule that can be planned anew.

    Weight decay is decoupled (Loshchilov and Hutter, 2019) and spares biases and normalisation.
    """
    import keras

    from trainer.training.fused_adam import FusedAdam
    from trainer.training.schedule import WarmupCosine

    schedule = WarmupCosine(recipe.learning_rate, config.final_learning_rate * recipe.learning_rate)
    schedule.follow(plan)
    if recipe.optimizer == "sgd":
        optimizer = keras.optimizers.SGD(
            schedule, momentum=config.momentum, nesterov=True, weight_decay=recipe.weight_decay
        )
    else:
        decay = recipe.weight_decay if recipe.optimizer == "adamw" else None
        optimizer = FusedAdam(schedule, weight_decay=decay)
    if optimizer.weight_decay is not None:
        optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    optimizer.schedule = schedule
    return optimizer
