from __future__ import annotations

import asyncio

import pytest

from trainer.serving.admission import Admission


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("trainer.serving.admission.time.perf_counter", clock)
    return clock


def admitted(admission: Admission) -> int:
    """Number of images that are admitted before one is refused."""
    for count in range(10_000):
        try:
            admission.enter()
        except asyncio.QueueFull:
            return count
    pytest.fail("all of them are admitted")


def test_as_many_images_are_admitted_as_meet_the_deadline(clock: Clock) -> None:
    # 0.85 s of work, and the image after it.
    assert admitted(Admission(1.0, image_s=0.010, gain=1.0)) == pytest.approx(86, abs=1)
    assert admitted(Admission(1.0, image_s=0.010, gain=2.0)) == pytest.approx(171, abs=1)
    assert admitted(Admission(0.001, image_s=0.010, gain=1.0)) == 1  # the first image is always admitted


def test_the_wait_is_predicted_from_recent_images(clock: Clock) -> None:
    admission = Admission(1.0, image_s=0.001, gain=1.0)
    for _ in range(32):
        admission.enter()
    for _ in range(32):  # now ten times as slow
        clock.now += 0.010
        admission.leave(computed=True)
    assert admitted(admission) == pytest.approx(86, abs=10)


def test_a_batch_counts_by_its_images(clock: Clock) -> None:
    admission = Admission(1.0, image_s=0.001, gain=1.0)
    for _ in range(20):
        for _ in range(16):
            admission.enter()
        clock.now += 0.160
        for _ in range(16):
            admission.leave(computed=True)
    for _ in range(10):
        admission.enter()
    assert admission.wait_s == pytest.approx(0.1, rel=0.05)


def test_pauses_between_requests_do_not_count_as_work(clock: Clock) -> None:
    admission = Admission(1.0, image_s=0.002, gain=4.0)
    for _ in range(100):
        clock.now += 5
        admission.enter()
        clock.now += 0.002
        admission.leave(computed=True)
    assert admitted(admission) == pytest.approx(0.85 / 0.0005, rel=0.01)


def test_images_that_were_not_computed_are_not_measured(clock: Clock) -> None:
    admission = Admission(1.0, image_s=0.010, gain=1.0)
    for _ in range(1000):
        admission.enter()
        admission.leave(computed=False)
    assert admitted(admission) == pytest.approx(86, abs=1)


def test_after_a_stall_images_are_admitted_again(clock: Clock) -> None:
    admission = Admission(1.0, image_s=0.001, gain=1.0)
    admission.enter()
    clock.now += 30
    admission.leave(computed=True)
    for _ in range(3):  # an empty server admits an image, which shows that it is quick again
        admission.enter()
        clock.now += 0.001
        admission.leave(computed=True)
    for _ in range(1000):
        admission.enter()
        clock.now += 0.001
        admission.leave(computed=True)
    assert admitted(admission) > 400
