"""Time, memory and disk of `trainer data inspect` and of a fit by the number of images; prints a table.

    python benchmarks/scale.py [--images 5000 20000 60000] [--commands inspect fit] [--size 32]

The files are made here: PNGs of one size in ten classes, gratings of ten directions under noise, in RGB. The fit trains
the last layer (`--fine-tune none`): what it takes grows with the images alone, not with epochs. Cache and store are of
this run. `slope` is the exponent between a row and the one before: 1 grows as the number of images does.
"""

from __future__ import annotations

import argparse
import math
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
from hardware import hardware
from PIL import Image

CLASSES = 10
COMMANDS = {
    "inspect": ("data", "inspect"),
    "fit": ("fit", "--model", "efficientnet_lite0", "--fine-tune", "none", "--no-save", "--wandb", "disabled"),
}


class Used(NamedTuple):
    """Time, memory and disk that a command took."""

    seconds: float
    cpu_s: float
    peak_mb: float  # of its largest process
    cache_mb: float  # on disk, after it


def make_images(folder: Path, count: int, size: int) -> None:
    """`count` different PNGs of `size` × `size` in folders of ten classes."""
    random = np.random.default_rng(0)
    y, x = np.mgrid[:size, :size].astype(np.float32) / size
    for number in range(count):
        label = number % CLASSES
        angle = math.pi * (label + random.uniform(-0.3, 0.3)) / CLASSES
        across = x * math.cos(angle) + y * math.sin(angle)
        wave = np.sin(2 * math.pi * (random.uniform(2, 5) * across + random.random()))
        colour = random.uniform(40, 200, 3)
        pixels = colour + 50 * wave[:, :, None] + random.normal(0, 12, (size, size, 3))
        path = folder / f"class{label}" / f"{number:07}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(path)


def run(arguments: list[str], folder: Path, cache: Path) -> Used:
    """Run a `trainer` command, and fail with its message if it fails."""
    environment = os.environ | {"TRAINER_CACHE_DIR": str(cache), "BENTOML_HOME": str(cache.with_name("bentoml"))}
    start = time.perf_counter()
    with (folder / "log").open("w+") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "trainer", *arguments], cwd=folder, env=environment, stdout=log, stderr=log
        )
        _, status, usage = os.wait4(process.pid, 0)
        if status:
            log.seek(0)
            sys.exit(f"trainer {' '.join(arguments)} failed:\n{log.read()[-2000:]}")
    disk = sum(file.stat().st_size for file in cache.rglob("*") if file.is_file())
    return Used(time.perf_counter() - start, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024, disk / 1e6)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, nargs="+", default=[5_000, 20_000, 60_000])
    parser.add_argument("--commands", nargs="+", choices=COMMANDS, default=list(COMMANDS))
    parser.add_argument("--size", type=int, default=32)
    options = parser.parse_args()
    print(hardware())
    print(f"PNGs of {options.size}x{options.size}\n")
    print("| command | images | seconds | CPU seconds | slope | peak memory, MB | cache, MB |")
    print("|---|---|---|---|---|---|---|")
    before: dict[str, tuple[int, Used]] = {}
    for count in options.images:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            make_images(folder / "images", count, options.size)
            for command in options.commands:
                used = run([*COMMANDS[command], str(folder / "images")], folder, folder / "cache")
                slope = "-"
                if command in before:
                    fewer, less = before[command]
                    slope = f"{math.log(used.cpu_s / less.cpu_s) / math.log(count / fewer):.2f}"
                before[command] = count, used
                print(
                    f"| {command} | {count:,} | {used.seconds:.0f} | {used.cpu_s:.0f} | {slope} | {used.peak_mb:,.0f} "
                    f"| {used.cache_mb:,.0f} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
