"""Throughput of the network on this machine, and the training that the time limit allows."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass

import numpy as np

from trainer.console import format_duration
from trainer.data import Dataset
from trainer.errors import InputError
from trainer.features.ood import REFERENCES
from trainer.text import counted
from trainer.training.network import Network
from trainer.training.settings import FitSettings
from trainer.training.timer import Timer, export_seconds

log = logging.getLogger("trainer")

STEP_TO_FORWARD = 3.5  # time of a training step over that of its forward pass, until steps have been measured
FORWARD_RUNS = 3
LONG_S = 15 * 60
PROPOSED_LIMIT_S = 10 * 60  # for a long training
MIN_STEPS = 20  # the least training of a network that starts from random weights


@dataclass
class Throughput:
    """Seconds of an image's forward pass and of a training step, corrected after every validation and every call."""

    timer: Timer
    parameters: int
    val_images: int
    test_images: int  # test images, and others that the export runs through the network once
    image_s: float
    step_s: float
    measured: bool = False

    def note_steps(self, steps: int, seconds: float) -> None:
        """Correct `step_s` by the `seconds` of some steps. The first call must not be noted: it traces the graph."""
        step_s = seconds / steps
        self.step_s = 0.7 * self.step_s + 0.3 * step_s if self.measured else step_s
        self.measured = True

    def note_validation(self, seconds: float) -> None:
        """Correct `image_s` by the measured `seconds` of all validation images."""
        self.image_s = seconds / self.val_images

    @property
    def export_s(self) -> float:
        """Expected seconds of export, test and report."""
        return export_seconds(self.parameters, self.image_s, self.val_images, self.test_images)

    @property
    def training_s(self) -> float:
        """Seconds left for the training; infinite without a limit."""
        return self.timer.left_s - self.export_s

    def affordable_steps(self, steps_per_epoch: int) -> int:
        """Training steps, with a validation after each epoch, that fit in the time left; huge without a limit."""
        left = self.training_s - self.image_s * self.val_images  # the last validation
        if left == float("inf"):
            return 2**62
        step_s = self.step_s + self.image_s * self.val_images / steps_per_epoch
        return max(0, int(left / step_s))


def measure_throughput(network: Network, dataset: Dataset, settings: FitSettings, timer: Timer) -> Throughput:
    """Time the network's forward pass on a training batch; the first run, which traces the graph, does not count.

    The fastest run counts, so that other load on the machine does not get a time limit refused. If the throughput stays
    lower, the first validation corrects it.
    """
    log.info("measuring the network's throughput on this machine")
    count = min(len(dataset.train), settings.plan.batch_size)
    images = dataset.train.read(np.arange(count))
    network.predict(images)
    seconds = []
    for _ in range(FORWARD_RUNS):
        start = time.perf_counter()
        network.predict(images)
        seconds.append(time.perf_counter() - start)
    image_s = min(seconds) / count
    return Throughput(
        timer,
        parameters=network.model.count_params(),
        val_images=len(dataset.val),
        # The export also computes features of some training images, for the out-of-distribution score.
        test_images=len(dataset.test)
        + (REFERENCES if settings.pretrained else 0)
        # The version before is asked about all held-out images.
        + (len(dataset.val) + len(dataset.test) if settings.earlier else 0),
        image_s=image_s,
        step_s=STEP_TO_FORWARD * image_s * settings.plan.batch_size,
    )


def announce_duration(throughput: Throughput, settings: FitSettings, dataset: Dataset) -> None:
    """Log how long the training will take, before its first step.

    Raises InputError for a time limit that is too short for even the least training.
    """
    plan, timer = settings.plan, throughput.timer
    if settings.pretrained:
        # The linear probe takes the features of the training images twice: as they are, and mirrored.
        least_s = (2 * len(dataset.train) + len(dataset.val)) * throughput.image_s
    else:
        least_s = MIN_STEPS * throughput.step_s
    least_s += throughput.export_s
    if least_s > timer.left_s:
        held_out = counted(len(dataset.val) + len(dataset.test), "validation and test image")
        whole = ", which --limit leaves whole" if settings.config.limit else ""
        raise InputError(
            f"--time-limit: {timer.limit_s:.0f}s are too short for these images and this network here; at least "
            f"{timer.elapsed_s + least_s:.0f}s are needed: {timer.elapsed_s:.0f}s until now, and "
            f"{throughput.export_s:.0f}s of the rest for the export of {throughput.parameters / 1e6:.1f} million "
            f"parameters and {held_out}{whole}"
        )
    all_s = plan.seconds(throughput.step_s) + plan.epochs * throughput.image_s * throughput.val_images + least_s
    work = f"at most {counted(plan.epochs, 'epoch')}" if plan.epochs else "the linear probe and the export"
    if timer.limit_s is not None:
        log.info("time limit %s, %s left", format_duration(timer.limit_s), format_duration(timer.left_s))
        return
    can_be_shorter = all_s > LONG_S and timer.elapsed_s + least_s < PROPOSED_LIMIT_S
    hint = f"; --time-limit {PROPOSED_LIMIT_S // 60}m makes do with less" if can_be_shorter else ""
    log.info("about %s for %s%s", format_duration(all_s), work, hint)
