from __future__ import annotations

import pytest

from trainer.config import FitConfig, InputError
from trainer.training.plan import Plan, make_plan


def test_mnist() -> None:
    plan = make_plan(FitConfig(dataset="x"), images=54_000)
    assert plan == Plan(batch_size=128, steps_per_epoch=421, epochs=5, warmup_steps=210, patience=5)
    assert (plan.total_steps, plan.images_per_epoch) == (2105, 53_888)
    assert plan.seconds(0.1) == pytest.approx(210.5)


def test_a_batch_is_no_larger_than_the_data() -> None:
    plan = make_plan(FitConfig(dataset="x", batch_size=64, epochs=1), images=30)
    assert (plan.batch_size, plan.steps_per_epoch, plan.warmup_steps) == (30, 1, 1)
    assert make_plan(FitConfig(dataset="x", batch_size=64), images=31, replicas=2).batch_size == 30


def test_devices_share_a_batch_evenly() -> None:
    with pytest.raises(InputError, match=r"--batch-size: 127 images cannot be shared evenly by 2 devices"):
        make_plan(FitConfig(dataset="x", batch_size=127), images=1000, replicas=2)
