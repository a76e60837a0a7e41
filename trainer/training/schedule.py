"""Learning-rate schedule for a training whose length can change while it runs."""

from __future__ import annotations

import math
from typing import Any

import keras
import tensorflow as tf

from trainer.training.plan import Plan


class WarmupCosine(keras.optimizers.schedules.LearningRateSchedule):
    """Linear warm-up to `peak`, then cosine decay (Loshchilov and Hutter, SGDR, 2017) to `end`, over a plan's steps."""

    def __init__(self, peak: float, end: float) -> None:
        super().__init__()
        self.peak, self.end = peak, end
        # Variables, which exist on every device: all of them follow a new plan at once.
        self._warmup = tf.Variable(1.0, trainable=False)
        self._total = tf.Variable(2.0, trainable=False)

    def follow(self, plan: Plan) -> None:
        """Use the steps of `plan` from now on."""
        self._warmup.assign(float(plan.warmup_steps))
        self._total.assign(float(max(plan.total_steps, plan.warmup_steps + 1)))

    def __call__(self, step: Any) -> tf.Tensor:
        done = tf.cast(step, tf.float32)
        progress = tf.clip_by_value((done - self._warmup) / (self._total - self._warmup), 0.0, 1.0)
        decayed = self.end + (self.peak - self.end) * 0.5 * (1 + tf.cos(math.pi * progress))
        return tf.where(done < self._warmup, self.peak * done / self._warmup, decayed)

    def get_config(self) -> dict[str, Any]:
        return {"peak": self.peak, "end": self.end}
