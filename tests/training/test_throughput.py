from __future__ import annotations

import logging
from typing import Any

import pytest

from trainer.config import FitConfig
from trainer.errors import InputError
from trainer.training.settings import load_dataset, resolve
from trainer.training.throughput import Throughput, announce_duration
from trainer.training.timer import Timer


def _announcement(
    options: dict[str, Any],
    caplog: pytest.LogCaptureFixture,
    *,
    image_s: float = 0.001,
    step_s: float = 0.1,
    limit_s: float | None = None,
) -> str:
    """The line for a run on the built-in digits, about 1,400 training images, at this throughput."""
    config = FitConfig("builtin:digits", **options)
    dataset = load_dataset(config)
    throughput = Throughput(Timer(limit_s), 10**6, len(dataset.val), len(dataset.test), image_s, step_s)
    with caplog.at_level(logging.INFO, "trainer"):
        announce_duration(throughput, resolve(config, dataset), dataset)
    return caplog.messages[-1]


PROBE = {"model": "efficientnet_lite0", "fine_tune": "none", "image_size": (32, 32)}


def test_training_is_announced_in_epochs(caplog: pytest.LogCaptureFixture) -> None:
    scratch = {"model": "compact_resnet", "batch_size": 64}
    assert "for at most 7 epochs" in _announcement(scratch | {"epochs": 7}, caplog)
    assert _announcement(scratch | {"epochs": 1}, caplog).endswith("for at most 1 epoch")
    assert "--time-limit 10m" in _announcement(scratch | {"epochs": 7}, caplog, step_s=10)


@pytest.mark.parametrize("image_s", [0.001, 0.5])
def test_linear_probe_is_announced_without_epochs(image_s: float, caplog: pytest.LogCaptureFixture) -> None:
    line = _announcement(PROBE, caplog, image_s=image_s)
    assert line.startswith("about ")
    assert "linear probe" in line
    assert "epoch" not in line
    assert "--time-limit" not in line  # nothing takes less than the probe


def test_time_limit_that_is_too_short(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(InputError, match=r"--time-limit: 600s are too short .* at least \d{4}s are needed: \d+s until"):
        _announcement(PROBE, caplog, image_s=0.5, limit_s=600)
    with pytest.raises(
        InputError, match=r"\d+s of the rest .* and \d{3} validation and test images, which --limit lea"
    ):
        _announcement(PROBE | {"limit": 500}, caplog, image_s=0.5, limit_s=600)
    assert _announcement(PROBE, caplog, limit_s=600) == "time limit 10 min 0 s, 10 min 0 s left"
