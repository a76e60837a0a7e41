"""Timer of a fit: seconds by section, seconds left of `--time-limit`, and seconds that the export needs."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

# Seconds of export and report: a constant, and an amount for each parameter of the network (two conversions by LiteRT,
# two files). Measured on two cores of a processor without AVX512.
EXPORT_S = 15.0
REPORT_S = 5.0  # the part of EXPORT_S that comes after the export
EXPORT_S_PER_PARAMETER = 2.2e-6
VAL_PASSES = 5  # of the export over the validation images; the test images are run once
CALIBRATION_IMAGES = 200  # of training, on which the export measures the ranges of activations for static-int8
CALIBRATION_PASSES = 5.0  # time of an image there, relative to a prediction
SAFETY = 1.1


@dataclass(frozen=True)
class Timer:
    """Time since the start, time by section, and time left."""

    limit_s: float | None  # None: no limit
    started: float = field(default_factory=time.monotonic)
    spent_s: dict[str, float] = field(default_factory=dict)  # by section

    @property
    def elapsed_s(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self.started

    @property
    def left_s(self) -> float:
        """Seconds left; infinite without a limit."""
        return float("inf") if self.limit_s is None else self.limit_s - self.elapsed_s

    @property
    def report(self) -> dict[str, float]:
        """Seconds by section, and `all`."""
        return self.spent_s | {"all": self.elapsed_s}

    @contextmanager
    def section(self, name: str) -> Iterator[None]:
        """Context whose duration is added to section `name`; a section may be entered several times."""
        start = time.monotonic()
        try:
            yield
        finally:
            self.spent_s[name] = self.spent_s.get(name, 0.0) + time.monotonic() - start


def export_seconds(parameters: int, seconds_per_image: float, val_images: int, test_images: int) -> float:
    """Expected seconds of export, test and report; `seconds_per_image` is the network's forward time."""
    images = VAL_PASSES * val_images + test_images + CALIBRATION_PASSES * CALIBRATION_IMAGES
    return SAFETY * (EXPORT_S + EXPORT_S_PER_PARAMETER * parameters + images * seconds_per_image)
