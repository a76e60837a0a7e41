from __future__ import annotations

import pytest

from trainer.config import FitConfig, Recipe
from trainer.errors import InputError
from trainer.training.plan import Plan, make_plan, suitable_batch_size

RECIPE = Recipe(epochs=5, batch_size=128, learning_rate=1e-3)


def plan_for(images: int, replicas: int = 1, **options: int | float) -> Plan:
    config = FitConfig(dataset="x", **options)  # type: ignore[arg-type]
    return make_plan(config, config.recipe(RECIPE), images, replicas)


def test_mnist() -> None:
    plan = plan_for(54_000)
    assert plan == Plan(batch_size=128, steps_per_epoch=421, total_steps=2105, warmup_steps=210, patience=5)
    assert plan.epochs == 5
    assert plan.seconds(0.1) == pytest.approx(210.5)


def test_little_data_has_smaller_batches_and_more_epochs() -> None:
    plan = plan_for(144)  # 60 pictures of each of three classes
    assert (plan.batch_size, plan.steps_per_epoch) == (8, 18)
    assert plan.total_steps >= 300
    assert plan.patience * plan.steps_per_epoch >= 200


def test_what_is_asked_for_is_kept() -> None:
    plan = plan_for(144, batch_size=128, epochs=3)
    assert (plan.batch_size, plan.steps_per_epoch, plan.epochs) == (128, 1, 3)
    assert plan_for(30, batch_size=64, epochs=1).batch_size == 30
    assert plan_for(31, replicas=2, batch_size=64).batch_size == 30


@pytest.mark.parametrize(("images", "batch"), [(5, 8), (144, 8), (320, 16), (500, 32), (1437, 64), (54_000, 128)])
def test_a_batch_suits_the_amount_of_data(images: int, batch: int) -> None:
    assert suitable_batch_size(images, 128) == batch


def test_less_time_means_fewer_steps() -> None:
    plan = plan_for(54_000).within(1000)
    assert (plan.total_steps, plan.warmup_steps, plan.epochs) == (1000, 100, 3)
    assert plan_for(54_000).within(5000) == plan_for(54_000)
    assert plan_for(54_000).within(0).epochs == 0
    assert plan_for(54_000, time_limit=600.0).epochs == 30


def test_devices_share_a_batch_evenly() -> None:
    with pytest.raises(InputError, match=r"--batch-size: 127 images cannot be shared evenly by 2 devices"):
        plan_for(1000, replicas=2, batch_size=127)
    assert plan_for(1000, replicas=3).batch_size % 3 == 0
