"""`trainer fit --start-from` beside a fit from the beginning, when a tenth of the photos is new; prints one table.

    python benchmarks/start_from.py FOLDER [--seeds 3] [--work FOLDER] [-- OPTIONS OF FIT]

For each seed a model is fitted on nine tenths of the photos of each class, drawn at random. Then all photos are there:
fitted from the beginning, and from that model on, its last layer alone and then all of it. The test
images are those of FOLDER; no model learned from them. Each fit is a process of its own with a cold cache. Time is the
CPU time of the whole command, as other programs may use the same processors. `--work` keeps the fits: after a stop,
those that are finished are not run again. docs/benchmarks.md has `clothing -- --image-size 96 --quantize none`.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from hardware import hardware
from photos import spread

NEW = 0.1  # of the photos of each class
CPU_S = "cpu_s"
FITS = {
    "nine tenths": (),
    "from the beginning": (),
    "--start-from": (),
    "--start-from, all of the network": ("--fine-tune=all",),
}
Result = dict[str, Any]


def nine_tenths(folder: Path, seed: int, part: Path) -> Path:
    """Links to the photos of `folder` without a share NEW of each class, in `part`."""
    generator = random.Random(seed)
    shutil.rmtree(part, ignore_errors=True)
    for labelled in sorted({file.parent for file in folder.rglob("*") if file.is_file() and file.parent != folder}):
        files = sorted(labelled.iterdir())
        for file in generator.sample(files, round((1 - NEW) * len(files))):
            link = part / file.relative_to(folder)
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(file.resolve())
    return part


def fit(work: Path, folder: Path, name: str, seed: int, options: Sequence[str]) -> Result:
    """Run one fit, or find its result in `work`; the result as `--json` prints it, and its CPU seconds."""
    kept = work / f"{name}-{seed}.json"
    if kept.exists():
        found: Result = json.loads(kept.read_text())
        return found
    cache = work / "cache"
    for left in (cache, work / name):
        shutil.rmtree(left, ignore_errors=True)
    command = [sys.executable, "-m", "trainer", "fit", str(folder), f"--seed={seed}", "--json", "--wandb=disabled"]
    command += [f"--name={name}-{seed}", f"--run-dir={work / name}", "--promote", *options]
    homes = {"TRAINER_CACHE_DIR": str(cache), "BENTOML_HOME": str(work / "store")}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=os.environ | homes)
    assert process.stdout
    with process.stdout as output:
        result: Result = json.loads(output.read() or "{}")
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {process.returncode}")
    result[CPU_S] = usage.ru_utime + usage.ru_stime
    kept.write_text(json.dumps(result))
    return result


def compare(folder: Path, work: Path, seed: int, options: Sequence[str]) -> dict[str, Result]:
    """The fits of one seed: name → result."""
    part = nine_tenths(folder, seed, work / "photos")
    results: dict[str, Result] = {}
    for number, (name, own) in enumerate(FITS.items()):
        start = (f"--start-from={results['nine tenths']['tag']}",) if name.startswith("--start-from") else ()
        results[name] = fit(work, folder if number else part, f"fit{number}", seed, (*options, *own, *start))
        result = results[name]
        print(
            f"seed {seed}, {name}: validation {result['val_accuracy']:.1%}, test {result['test_accuracy']:.1%}, "
            f"{result[CPU_S]:.0f} CPU s, {result['epochs']} epochs",
            flush=True,
        )
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--work", type=Path)
    arguments = sys.argv[1:]
    separator = arguments.index("--") if "--" in arguments else len(arguments)
    options = parser.parse_args(arguments[:separator])
    print(hardware(), flush=True)
    with tempfile.TemporaryDirectory() as scratch:
        work = options.work or Path(scratch)
        work.mkdir(parents=True, exist_ok=True)
        seeds = range(options.seeds)
        results = [compare(options.folder, work, seed, arguments[separator + 1 :]) for seed in seeds]
    print("\n| fit | test accuracy % | better than from the beginning, points | CPU s | of the beginning's |")
    print("|---|---|---|---|---|")
    for name in FITS:
        test, beginning = (
            100 * np.array([result[each]["test_accuracy"] for result in results])
            for each in (name, "from the beginning")
        )
        cpu_s, all_s = (np.array([result[each][CPU_S] for result in results]) for each in (name, "from the beginning"))
        figures = ((test, 1), (test - beginning, 1), (cpu_s, 0), (cpu_s / all_s, 2))
        row = (name, *(spread(values.tolist(), digits) for values, digits in figures))
        print(f"| {' | '.join(row)} |")


if __name__ == "__main__":
    main()
