"""Accuracy, time and memory of `trainer fit` on folders of photos; prints one table.

    python benchmarks/photos.py FOLDER [FOLDER ...] [--runs 3] [-- OPTIONS OF FIT]

Each run is a separate process with a cold cache and a new seed; figures are medians, with the lowest and the highest.
The rows of docs/benchmarks.md: `clothing -- --time-limit 3m`, `clothing -- --time-limit 15m`,
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
    """Runs one fit; returns the test accuracy in %, the seconds of the whole command and its peak memory in MB."""
    with tempfile.TemporaryDirectory() as scratch:
        command = [sys.executable, "-m", "trainer", "fit", "--dataset", folder, "--seed", str(seed), "--json"]
        command += ["--no-save", "--wandb=disabled", f"--run-dir={scratch}/run", *options]
        start = time.perf_counter()
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=os.environ | {"TRAINER_CACHE_DIR": scratch}
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
    arguments = sys.argv[1:]
    separator = arguments.index("--") if "--" in arguments else len(arguments)
    fit_options = arguments[separator + 1 :]
    options = parser.parse_args(arguments[:separator])
    print(hardware(), flush=True)
    print("| data | options | test accuracy % | seconds | peak MB |\n|---|---|---|---|---|", flush=True)
    for folder in options.folders:
        results = [fit(folder, seed, fit_options) for seed in range(options.runs)]
        accuracies, seconds, megabytes = zip(*results, strict=True)
        row = (
            os.path.basename(folder),
            " ".join(fit_options),
            spread(accuracies, 1),
            spread(seconds, 0),
            spread(megabytes, 0),
        )
        print(f"| {' | '.join(row)} |", flush=True)


if __name__ == "__main__":
    main()
