"""What a sweep costs over its trainings: 8 short trials with two workers beside the same trainings one by one.

    python benchmarks/sweep.py

The trainings one by one have one core each; the sweep has two workers with one core each, so that half of their sum is
what it would take at best.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from hardware import hardware

RATES = (0.0005, 0.0007, 0.001, 0.0014, 0.002, 0.0028, 0.004, 0.0056)
FIT = ("--dataset=builtin:digits", "--epochs=3")
SWEEP = f"""\
method: grid
metric: {{name: val_accuracy, goal: maximize}}
parameters:
  learning_rate: {{values: {list(RATES)}}}
command: ["${{env}}", "trainer", "fit", "--no-save", {", ".join(FIT)}, "${{args}}"]
"""


def timed(command: list[str], folder: str, cores: set[int]) -> float:
    start = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", "trainer", *command],
        cwd=folder,
        env=os.environ | {"TRAINER_CACHE_DIR": f"{folder}/cache"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    os.sched_setaffinity(process.pid, cores)
    if process.wait():
        raise SystemExit(f"failed: trainer {' '.join(command)}")
    return time.perf_counter() - start


def main() -> None:
    cores = sorted(os.sched_getaffinity(0))[:2]
    print(hardware(), flush=True)
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "sweep.yaml").write_text(SWEEP)
        fit = ["fit", *FIT, "--no-save", "--wandb=offline"]
        timed([*fit, "--run-dir=warm"], folder, set(cores))  # fills the cache of decoded images
        alone = [timed([*fit, f"--learning-rate={rate}", f"--run-dir=r{rate}"], folder, {cores[0]}) for rate in RATES]
        together = timed(["sweep", "sweep.yaml", "--workers=2"], folder, set(cores))
    print(
        f"one by one {sum(alone):.0f} s, half of it {sum(alone) / 2:.0f} s; sweep with two workers {together:.0f} s, "
        f"ratio {together / (sum(alone) / 2):.2f} (1 is ideal)"
    )


if __name__ == "__main__":
    main()
