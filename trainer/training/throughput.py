"""How fast a network trains here, and the plan that the time allows."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from trainer.errors import InputError
from trainer.training.plan import Plan
from trainer.training.timer import Clock, closing_seconds

log = logging.getLogger("trainer")

STEP_TO_FORWARD = 3.5  # a training step's time for that of the same images forward, until steps have been measured
RUNS = 3  # to measure it
LONG_S = 15 * 60
LEAST_STEPS = 20  # of a network that starts from nothing


@dataclass
class Pace:
    """Seconds for each image forward and for each training step, corrected by every validation and every call."""

    clock: Clock
    parameters: int
    val_images: int
    test_images: int
    batch_size: int
    image_s: float
    step_s: float
    measured: bool = False

    def note_steps(self, steps: int, seconds: float) -> None:
        """Steps that have been run; the first call, which traces, is not told."""
        each = seconds / steps
        self.step_s = 0.7 * self.step_s + 0.3 * each if self.measured else each
        self.measured = True

    def note_validation(self, seconds: float) -> None:
        """All validation images have gone forward."""
        self.image_s = seconds / self.val_images

    @property
    def closing_s(self) -> float:
        return closing_seconds(self.parameters, self.image_s, self.val_images, self.test_images)

    def affordable_steps(self, steps_per_epoch: int) -> int:
        """How many more steps, with a validation after each epoch, the clock allows; without a limit, very many."""
        left = self.clock.left_s - self.closing_s - self.image_s * self.val_images  # the last validation
        if left == float("inf"):
            return 2**62
        each = self.step_s + self.image_s * self.val_images / steps_per_epoch
        return max(0, int(left / each))


def measure_pace(
    clock: Clock,
    forward: Callable[[], Any],
    images: int,
    *,
    parameters: int,
    val_images: int,
    test_images: int,
    plan: Plan,
) -> Pace:
    """Time `forward`, which runs `images` images through the network; its first call, which traces, does not count.

    The fastest run counts, so that nobody is refused for what else the machine did meanwhile: what is slower shows in
    the first validation.
    """
    forward()
    seconds = []
    for _ in range(RUNS):
        start = time.perf_counter()
        forward()
        seconds.append(time.perf_counter() - start)
    image_s = min(seconds) / images
    return Pace(
        clock,
        parameters=parameters,
        val_images=val_images,
        test_images=test_images,
        batch_size=plan.batch_size,
        image_s=image_s,
        step_s=STEP_TO_FORWARD * image_s * plan.batch_size,
    )


def announce(pace: Pace, plan: Plan, *, pretrained_images: int) -> None:
    """Log how long the training will take, before its first step.

    `pretrained_images` is how many images a pretrained network still has to look at for its head (0: from nothing).
    Raises InputError for a time limit that is too short even for the least.
    """
    least_s = pretrained_images * pace.image_s if pretrained_images else LEAST_STEPS * pace.step_s
    least_s += pace.closing_s
    clock = pace.clock
    if least_s > clock.left_s:
        raise InputError(
            f"--time-limit: {clock.limit_s:.0f}s are too short for these images and this network here; at least "
            f"{clock.elapsed_s + least_s:.0f}s are needed"
        )
    all_s = plan.seconds(pace.step_s) + plan.epochs * pace.image_s * pace.val_images + least_s
    epochs = f"{plan.epochs} epochs" if plan.epochs != 1 else "1 epoch"
    if clock.limit_s is not None:
        log.info("time limit %s, of which %s are left", spoken(clock.limit_s), spoken(clock.left_s))
    elif all_s > LONG_S:
        log.info("about %s for at most %s; --time-limit 10m makes do with less", spoken(all_s), epochs)
    else:
        log.info("about %s for at most %s", spoken(all_s), epochs)


def spoken(seconds: float) -> str:
    """`45 s`, `3 min` or `2.5 h`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 90 * 60 else f"{seconds / 3600:.1f} h"
