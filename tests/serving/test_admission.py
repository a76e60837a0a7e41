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


def let_in(admission: Admission) -> int:
    """How many are let in before one is refused."""
    for count in range(10_000):
        try:
            admission.enter()
        except asyncio.QueueFull:
            return count
    pytest.fail("all of them are let in")


def test_as_many_are_let_in_as_can_be_answered_within_the_deadline(clock: Clock) -> None:
    # 0.85 s of work, and the one after it.
    assert let_in(Admission(1.0, image_s=0.010, gain=1.0)) == pytest.approx(86, abs=1)
    assert let_in(Admission(1.0, image_s=0.010, gain=2.0)) == pytest.approx(171, abs=1)
    assert let_in(Admission(0.001, image_s=0.010, gain=1.0)) == 1  # whoever is alone may try


def test_the_wait_is_foreseen_from_what_images_took_lately(clock: Clock) -> None:
    admission = Admission(1.0, image_s=0.001, gain=1.0)
    for _ in range(32):
        admission.enter()
    for _ in range(32):  # now ten times as slow
        clock.now += 0.010
        admission.leave(computed=True)
    assert let_in(admission) == pytest.approx(86, abs=10)


def test_a_batch_is_counted_by_its_images(clock: Clock) -> None:
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


def test_pauses_between_requests_are_no_work(clock: Clock) -> None:
    admission = Admission(1.0, image_s=0.002, gain=4.0)
    for _ in range(100):
        clock.now += 5
        admission.enter()
        clock.now += 0.002
        admission.leave(computed=True)
    assert let_in(admission) == pytest.approx(0.85 / 0.0005, rel=0.01)


def test_what_was_refused_or_given_up_says_nothing_of_the_time(clock: Clock) -> None:
    admission = Admission(1.0, image_s=0.010, gain=1.0)
    for _ in range(1000):
        admission.enter()
        admission.leave(computed=False)
    assert let_in(admission) == pytest.approx(86, abs=1)


def test_after_a_stall_images_are_let_in_again(clock: Clock) -> None:
    admission = Admission(1.0, image_s=0.001, gain=1.0)
    admission.enter()
    clock.now += 30
    admission.leave(computed=True)
    for _ in range(3):  # whoever comes to an empty server is let in, and shows that it is quick again
        admission.enter()
        clock.now += 0.001
        admission.leave(computed=True)
    for _ in range(1000):
        admission.enter()
        clock.now += 0.001
        admission.leave(computed=True)
    assert let_in(admission) > 400
