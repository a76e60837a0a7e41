"""`trainer fit` on photos, as its user runs it; prints one table.

    python benchmarks/photos.py FOLDER [FOLDER ...] [--runs 3] [-- OPTIONS OF FIT]

Each run is a process of its own with a cold cache and another seed; figures are medians, with the lowest and highest.
For example, the rows of docs/benchmarks.md: `clothing -- --time-limit 3m`, `clothing -- --time-limit 15m`,
`clothing -- --limit 500`, `cifar10_folder -- --time-limit 3m`.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence

from hardware import hardware


def fit(folder: str, seed: int, options: Sequence[str]) -> tuple[float, float, float]:
    """Test accuracy in %, seconds of the whole command, peak memory in MB."""
    with tempfile.TemporaryDirectory() as place:
        command = [sys.executable, "-m", "trainer", "fit", "--dataset", folder, "--seed", str(seed), "--json"]
        command += ["--no-save", "--wandb=disabled", f"--run-dir={place}/run", *options]
        start = time.perf_counter()
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=os.environ | {"TRAINER_CACHE_DIR": place}
        )
        assert process.stdout
        with process.stdout as output:
            result = json.loads(output.read() or "{}")
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            raise SystemExit(f"{' '.join(command)} ended with {process.returncode}")
        return 100 * result["test_accuracy"], time.perf_counter() - start, usage.ru_maxrss / 1024


def spread(values: Sequence[float], digits: int) -> str:
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+")
    parser.add_argument("--runs", type=int, default=3)
    ours = sys.argv[1:]
    theirs = ours[ours.index("--") + 1 :] if "--" in ours else []
    options = parser.parse_args(ours[: ours.index("--")] if "--" in ours else ours)
    print(hardware(), flush=True)
    print("| data | options | test accuracy % | seconds | peak MB |\n|---|---|---|---|---|", flush=True)
    for folder in options.folders:
        accuracies, seconds, megabytes = zip(*(fit(folder, seed, theirs) for seed in range(options.runs)), strict=True)
        row = (
            os.path.basename(folder),
            " ".join(theirs),
            spread(accuracies, 1),
            spread(seconds, 0),
            spread(megabytes, 0),
        )
        print(f"| {' | '.join(row)} |", flush=True)


if __name__ == "__main__":
    main()
