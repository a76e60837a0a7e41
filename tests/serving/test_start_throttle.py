from __future__ import annotations

import subprocess
import sys

import pytest

CODE = """
import sys, time
from trainer.serving.start_throttle import start_throttle, stop_throttle

pauses = []
sleep, time.sleep = time.sleep, pauses.append

def use_cpu(seconds):
    start = time.thread_time()
    while time.thread_time() < start + seconds:
        pass
    count = len(pauses)
    print(count, sum(pauses))
    pauses.clear()

start_throttle(float(sys.argv[1]))
use_cpu(0.5)
stop_throttle()
sleep(0.1)
pauses.clear()
use_cpu(0.1)
"""


@pytest.mark.parametrize(("share", "pause_s"), [(0.25, 0.03), (0.5, 0.01)])
def test_a_throttled_start_pauses_after_each_slice_of_cpu_time(share: float, pause_s: float) -> None:
    (pauses, total_s), (later, _) = pauses_of(share)
    assert pauses >= 10
    assert total_s == pytest.approx(pauses * pause_s)
    assert later == 0


def test_a_whole_cpu_is_not_throttled() -> None:
    assert pauses_of(1) == [(0, 0), (0, 0)]


def pauses_of(share: float) -> list[tuple[int, float]]:
    """Pauses, and their sum in seconds, during 0.5 s of CPU time under the throttle, and after it."""
    command = [sys.executable, "-c", CODE, str(share)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    return [(int(count), float(total)) for count, total in (line.split() for line in done.stdout.splitlines())]
