"""`--time-limit`: what is left of it, and what must be kept for the end."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

# Seconds that export and report take whatever the network, and for each of its parameters (two conversions by LiteRT,
# two files); measured on two cores of a processor without AVX512.
EXPORT_S = 15.0
REPORT_S = 5.0  # of these, after the export
EXPORT_S_PER_PARAMETER = 2.2e-6
EVALUATIONS = 4  # of the validation images by the export; the test images are run once
SAFETY = 1.1


@dataclass(frozen=True)
class Clock:
    """The time of a fit, and where it goes."""

    limit_s: float | None  # None: there is no limit
    started: float = field(default_factory=time.monotonic)
    spent_s: dict[str, float] = field(default_factory=dict)  # by part of the work

    @property
    def elapsed_s(self) -> float:
        return time.monotonic() - self.started

    @property
    def left_s(self) -> float:
        """Infinite without a limit."""
        return float("inf") if self.limit_s is None else self.limit_s - self.elapsed_s

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """What is done here is a part of the work, which may be done in several pieces."""
        start = time.monotonic()
        try:
            yield
        finally:
            self.spent_s[name] = self.spent_s.get(name, 0.0) + time.monotonic() - start


def closing_seconds(parameters: int, seconds_per_image: float, val_images: int, test_images: int) -> float:
    """What export, the test and the report will take; `seconds_per_image` is the network's forward time."""
    images = EVALUATIONS * val_images + test_images
    return SAFETY * (EXPORT_S + EXPORT_S_PER_PARAMETER * parameters + images * seconds_per_image)
