"""Images per second of `trainer predict MODEL FOLDER --csv`, beside its engines and its decoders alone.

    python benchmarks/predict.py MODEL FOLDER [--images 5000] [--runs 3]

What both can do together is 1 / (1 / engines + 1 / decoders): the CPUs do nothing else. Engines run on pixels that are
in memory, decoders in a process for each CPU, which no lock of Python's keeps waiting. All are measured in turn, and
shares are of the same turn; figures are medians, with the lowest and the highest. The share by CPU time holds on a busy
machine, too, but does not see CPUs that wait. A smaller folder is repeated by links, up to `--images` files.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
from hardware import hardware

from trainer import load_model
from trainer.artifact.engine import load_engine
from trainer.images.decode import decode
from trainer.images.pixels import PixelSpec
from trainer.machine import available_cpus
from trainer.predict.files import find_images
from trainer.predict.model import BATCH_SIZE, Model

ENGINE_IMAGES = 1024  # decoded at once


def link(folder: Path, count: int, into: Path) -> list[Path]:
    """`count` links to the images of a folder, again from the first where it has fewer."""
    images = find_images([folder])
    links = []
    for number in range(count):
        image = images[number % len(images)]
        links.append(into / f"{number:06}{image.suffix}")
        links[-1].symlink_to(image.absolute())
    return links


def decode_all(paths: Sequence[Path], pixels: PixelSpec) -> float:
    """The CPU seconds that it takes."""
    start = time.process_time()
    for path in paths:
        decode(path.read_bytes(), pixels)
    return time.process_time() - start


def measured(images: int, work: Callable[[], Sequence[float] | None]) -> tuple[float, float]:
    """Images per second, and CPU milliseconds an image: this process's, and those that `work` returns."""
    start, start_cpu = time.perf_counter(), time.process_time()
    elsewhere = sum(work() or ())
    cpu_s = time.process_time() - start_cpu + elsewhere
    return images / (time.perf_counter() - start), 1000 * cpu_s / images


def engines_alone(model: Model, pixels: np.ndarray) -> Callable[[], None]:
    engines = [load_engine(model.artifact, threads=1) for _ in range(available_cpus())]
    batches = [pixels[start : start + BATCH_SIZE] for start in range(0, len(pixels), BATCH_SIZE)]

    def run(number: int) -> None:
        for batch in batches[number :: len(engines)]:
            model.classify(batch, engines[number])

    def run_all() -> None:
        with ThreadPoolExecutor(len(engines)) as pool:
            list(pool.map(run, range(len(engines))))

    run_all()  # the first run sets the engines up
    return run_all


def command(tag: str, folder: Path, table: Path) -> list[float]:
    """The CPU seconds that it takes."""
    words = [sys.executable, "-m", "trainer", "predict", tag, str(folder), f"--csv={table}"]
    process = subprocess.Popen(words, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(words)} ended with {process.returncode}")
    table.unlink()
    return [usage.ru_utime + usage.ru_stime]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--runs", type=int, default=3)
    options = parser.parse_args()
    cpus = available_cpus()
    with tempfile.TemporaryDirectory() as scratch, ProcessPoolExecutor(cpus) as processes:
        folder = Path(scratch) / "images"
        folder.mkdir()
        paths = link(options.folder, options.images, folder)
        list(processes.map(abs, range(cpus)))  # starts them, before this process has threads
        model = load_model(options.model)
        spec = model.artifact.pixels
        pixels = np.stack([model.read(path) for path in paths[:ENGINE_IMAGES]])
        run_engines = engines_alone(model, pixels)
        shares = [paths[number::cpus] for number in range(cpus)]
        figures: dict[str, list[tuple[float, ...]]] = {}
        for _ in range(options.runs):
            decoders = measured(len(paths), lambda: list(processes.map(partial(decode_all, pixels=spec), shares)))
            engines = measured(len(pixels), run_engines)
            both = 1 / (1 / decoders[0] + 1 / engines[0]), decoders[1] + engines[1]
            together = measured(len(paths), lambda: print(len(model.predict_many(paths)), file=sys.stderr))
            whole = measured(len(paths), lambda: command(model.tag, folder, Path(scratch) / "answers.csv"))
            names = ("decoders alone", "engines alone", "both, at most", "`predict_many`", "the whole command")
            for name, (rate, cpu_ms) in zip(names, (decoders, engines, both, together, whole), strict=True):
                figures.setdefault(name, []).append((rate, cpu_ms, rate / both[0], both[1] / cpu_ms))
    print(hardware())
    print(f"{model.tag}, {model.artifact.quantization}, {len(paths)} images of {options.folder}\n")
    print("| | images/s | CPU ms an image | of the most, by time | of the most, by CPU |\n|---|---|---|---|---|")
    for name, turns in figures.items():
        cells = [
            f"{statistics.median(column):.3g} ({min(column):.3g} to {max(column):.3g})"
            for column in zip(*turns, strict=True)
        ]
        print(f"| {name} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
