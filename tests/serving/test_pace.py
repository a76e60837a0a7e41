from __future__ import annotations

import subprocess
import sys

CODE = """
import sys, time
from trainer.serving.pace import full_speed, slow_down

def busy(cpu_s):
    wall, cpu = time.perf_counter(), time.process_time()
    while time.process_time() < cpu + cpu_s:
        pass
    return (time.process_time() - cpu) / (time.perf_counter() - wall)

slow_down(float(sys.argv[1]))
slow = busy(0.5)
full_speed()
time.sleep(0.1)  # no signal comes in between
print(slow, busy(0.5))
"""


def shares(share: float) -> list[float]:
    """Of one CPU: what is taken slowed down, and at full speed again."""
    command = [sys.executable, "-c", CODE, str(share)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    return [float(taken) for taken in done.stdout.split()]


def test_a_start_takes_its_share_of_a_cpu_and_no_more() -> None:
    slow, full = shares(0.25)
    assert 0.05 < slow < 0.3
    assert full > 1.5 * slow


def test_a_whole_cpu_is_not_slowed_down() -> None:
    slow, full = shares(1)
    assert slow > 0.4 * full
