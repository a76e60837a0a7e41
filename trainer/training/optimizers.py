"""The optimizers and their learning-rate schedule."""

from __future__ import annotations

from typing import Any

from trainer.config import FitConfig


def make_optimizer(config: FitConfig, total_steps: int) -> Any:
    """AdamW, Adam (without weight decay) or SGD with Nesterov momentum, under warm-up and cosine decay.

    Weight decay is decoupled (Loshchilov and Hutter, 2019) and spares biases and normalisation.
    """
    import keras

    warmup_steps = max(1, round(config.warmup_fraction * total_steps))
    schedule = keras.optimizers.schedules.CosineDecay(
        initial_learning_rate=0.0,
        warmup_target=config.learning_rate,
        warmup_steps=warmup_steps,
        decay_steps=max(1, total_steps - warmup_steps),
        alpha=config.final_learning_rate,
    )
    if config.optimizer == "sgd":
        optimizer = keras.optimizers.SGD(
            schedule, momentum=config.momentum, nesterov=True, weight_decay=config.weight_decay
        )
    else:
        decay = config.weight_decay if config.optimizer == "adamw" else None
        optimizer = fused(keras.optimizers.Adam(schedule, weight_decay=decay))
    if optimizer.weight_decay is not None:
        optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    return optimizer


def fused(adam: Any) -> Any:
    """The same Adam with TensorFlow's one-pass update kernel.

    Keras writes the update as ten operations, each a pass over every weight and moment. The kernel makes one,
    which saves a fifth or more of a training step where most weights lie in a large Dense layer.
    """
    import tensorflow as tf

    def update_step(gradient: tf.Tensor, variable: tf.Variable, learning_rate: tf.Tensor) -> None:
        index = adam._get_variable_index(variable)
        step = tf.cast(adam.iterations + 1, variable.dtype)
        tf.raw_ops.ResourceApplyAdam(
            var=variable.handle,
            m=adam._momentums[index].value.handle,
            v=adam._velocities[index].value.handle,
            beta1_power=adam.beta_1**step,
            beta2_power=adam.beta_2**step,
            lr=tf.cast(learning_rate, variable.dtype),
            beta1=adam.beta_1,
            beta2=adam.beta_2,
            epsilon=adam.epsilon,
            grad=gradient,
        )

    adam.update_step = update_step
    return adam
