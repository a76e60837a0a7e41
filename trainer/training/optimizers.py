"""The optimizers and their learning-rate schedule."""

from __future__ import annotations

from typing import Any

from trainer.config import FitConfig
from trainer.training.plan import Plan


def make_optimizer(config: FitConfig, plan: Plan) -> Any:
    """AdamW, Adam (without weight decay) or SGD with Nesterov momentum, under warm-up and cosine decay.

    Weight decay is decoupled (Loshchilov and Hutter, 2019) and spares biases and normalisation.
    """
    import keras

    from trainer.training.fused_adam import FusedAdam

    schedule = keras.optimizers.schedules.CosineDecay(
        initial_learning_rate=0.0,
        warmup_target=config.learning_rate,
        warmup_steps=plan.warmup_steps,
        decay_steps=max(1, plan.total_steps - plan.warmup_steps),
        alpha=config.final_learning_rate,
    )
    if config.optimizer == "sgd":
        optimizer = keras.optimizers.SGD(
            schedule, momentum=config.momentum, nesterov=True, weight_decay=config.weight_decay
        )
    else:
        decay = config.weight_decay if config.optimizer == "adamw" else None
        optimizer = FusedAdam(schedule, weight_decay=decay)
    if optimizer.weight_decay is not None:
        optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    return optimizer
