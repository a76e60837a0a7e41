"""Kills at random moments of real fits: each is started again, ends with the same metrics, and leaves nothing over.

    python benchmarks/kill.py DATASET … [--kills 20] [--seed 1] [-- OPTION …]

Fits each data set once undisturbed (in float32; OPTIONs of `trainer fit` go to every fit). Then, for each kill: a
store, a cache and runs of its own, `trainer fit`, SIGKILL to the process and to all that it has started, at a moment
drawn evenly between the first file in the cache and the end of the undisturbed fit, and the same command again. The
metrics, the epochs that are trained twice (at most one is) and the names of all files are compared. Prints a table for
each data set; exit code 1 if anything differs. Moments are in seconds: on another machine a seed kills elsewhere.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hardware import hardware

from trainer import artifact
from trainer.artifact import store

COMPARED = ("epochs", "val_accuracy", "test_accuracy", "test_loss", "calibration_error")
TIMED = "more_images.png"  # a figure of the report, which is drawn where the measured speed leaves time for it
POLL_S = 0.05
TRAINED = '"event": "epoch"'


@dataclass(frozen=True)
class Fit:
    """A run of `trainer fit` that has ended or was killed."""

    code: int
    out: str
    err: str
    seconds: float
    decoding_s: float  # from its start to its first file in the cache

    @property
    def metrics(self) -> dict[str, Any]:
        """The compared figures of its result."""
        result = json.loads(self.out.splitlines()[-1])
        return {name: result.get(name) for name in COMPARED}

    @property
    def epochs(self) -> int:
        """Number of epochs that it has trained and validated."""
        return self.out.count(TRAINED)


def fit(home: Path, options: Sequence[str], *, kill_after_s: float = math.inf) -> Fit:
    """Run `trainer fit` with a store, a cache and runs in `home`, and kill it unless it has ended before."""
    environment = {"BENTOML_HOME": str(home / "store"), "TRAINER_CACHE_DIR": str(home / "cache")}
    home.mkdir(exist_ok=True)
    command = [sys.executable, "-m", "trainer", "fit", *options, "--precision=float32", "--json", "--events"]
    files = [home.with_name(f"{home.name}.{name}") for name in ("out", "err")]
    started, decoding_s = time.monotonic(), 0.0
    with files[0].open("w") as out, files[1].open("w") as err:
        process = subprocess.Popen(
            command,
            cwd=home,
            env=os.environ | environment | {"WANDB_MODE": "disabled", "BENTOML_DO_NOT_TRACK": "True"},
            stdout=out,
            stderr=err,
            start_new_session=True,
        )
        while process.poll() is None:
            seconds = time.monotonic() - started
            if not decoding_s and (home / "cache").exists():
                decoding_s = seconds
            if seconds > kill_after_s:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
            time.sleep(POLL_S)
    seconds = time.monotonic() - started
    stdout, stderr = (file.read_text(encoding="utf-8") for file in files)
    return Fit(process.returncode, stdout, stderr, seconds, decoding_s)


def names(home: Path) -> set[str]:
    """Files and folders in `home`, without what is drawn at random, or is a time, in their names."""
    found = (path.relative_to(home).as_posix() for path in home.rglob("*") if path.name != TIMED)
    versions = (re.sub(r"(models/[^/]+/)[a-z2-7]{16}", r"\1VERSION", name) for name in found)
    return {re.sub(r"-\d{8}-\d{6}", "-TIME", name) for name in versions}


def is_whole(home: Path) -> bool:
    """Whether every version that a reader of the store finds is whole."""
    os.environ["BENTOML_HOME"] = str(home / "store")
    return all(artifact.load(model.path) for model in store.models())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("datasets", nargs="+", metavar="DATASET")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    words, options = sys.argv[1:], []
    if "--" in words:
        words, options = words[: words.index("--")], words[words.index("--") + 1 :]
    arguments = parser.parse_args(words)
    print(f"{hardware()}; seed {arguments.seed}; options {' '.join(options) or 'none'}")
    moments = random.Random(arguments.seed)
    problems = 0
    with tempfile.TemporaryDirectory() as folder:
        for number, dataset in enumerate(arguments.datasets):
            problems += try_dataset(Path(folder, str(number)), dataset, options, arguments.kills, moments)
    return 1 if problems else 0


def try_dataset(folder: Path, dataset: str, options: Sequence[str], kills: int, moments: random.Random) -> int:
    """Kill the fits of one data set, and print a line for each → problems."""
    folder.mkdir()
    options = (dataset, *options)
    whole = fit(folder / "whole", options)
    assert whole.code == 0, whole.err
    print(f"{dataset}: undisturbed {whole.seconds:.0f} s, {whole.epochs} epochs, {whole.metrics}")
    print("| killed after, s | last line of its log | again, s | epochs twice | problems |\n|---|---|---|---|---|")
    count = 0
    for number in range(kills):
        home = folder / f"kill-{number}"
        killed = fit(home, options, kill_after_s=moments.uniform(whole.decoding_s, whole.seconds))
        problems = [] if is_whole(home) else ["a version in part"]
        again = killed if killed.code == 0 else fit(home, options)
        if again.code:
            problems.append(f"exit code {again.code}: {again.err.splitlines()[-1]}")
        elif again.metrics != whole.metrics:
            problems.append(f"metrics {again.metrics}")
        twice = 0 if again is killed else killed.epochs + again.epochs - whole.epochs
        if twice > 1:
            problems.append(f"{twice} epochs are trained twice")
        if more := names(home) ^ names(folder / "whole"):
            problems.append(f"files that differ: {', '.join(sorted(more)[:3])}")
        last = killed.err.strip().splitlines()[-1] if killed.code else "it had ended"
        print(
            f"| {killed.seconds:.1f} | {last[:60]} | {again.seconds:.1f} | {max(0, twice)} | "
            f"{'; '.join(problems) or '0'} |",
            flush=True,
        )
        count += len(problems)
    return count


if __name__ == "__main__":
    sys.exit(main())
