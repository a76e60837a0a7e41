"""Speed and accuracy of `trainer fit` and of plain Keras on the same machine; prints one line per figure.

    TFDS_DATA_DIR=... python benchmarks/train.py [--runs 3] [--only throughput,input,...] [--folder DIR]
    TFDS_DATA_DIR=... python benchmarks/train.py --quick [--runs 1]    # 3 minutes: before and after a change

Each figure is the median of `--runs`; every run is a separate process, and trainer and Keras alternate. `--folder`
holds class folders with small JPEG files, for the first-pass measurement.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from hardware import hardware
from PIL import Image

BIN = Path(sys.executable).parent
FILES = 36_000
PROGRAMS = Path(__file__).with_name("train_programs.py")


def program(name: str, *arguments: object, plain: bool = False, **environment: str) -> dict[str, float]:
    """Run a program of `train_programs.py` → its JSON object. `plain`: with TensorFlow's defaults."""
    variables = os.environ | environment
    if plain:  # otherwise `import trainer` switches oneDNN on for Keras, too
        variables |= {"TF_ENABLE_ONEDNN_OPTS": os.environ.get("TF_ENABLE_ONEDNN_OPTS", DEFAULT_ONEDNN)}
    done = subprocess.run(
        [sys.executable, PROGRAMS, name, *map(str, arguments)],
        env=variables,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(done.stderr)
    result: dict[str, float] = json.loads(done.stdout.strip().splitlines()[-1])
    return result


def fit(*options: str, **environment: str) -> dict[str, float]:
    """`trainer fit` on MNIST, by default with --no-save; returns its result with the seconds of the whole command."""
    with tempfile.TemporaryDirectory() as folder:
        command = [
            BIN / "trainer",
            "fit",
            "--dataset",
            "tfds:mnist",
            "--no-save",
            "--wandb",
            "disabled",
            "--json",
        ]
        start = time.perf_counter()
        done = subprocess.run(
            [*map(str, command), "--run-dir", f"{folder}/run", *options],
            env=os.environ | environment,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise SystemExit(done.stderr)
        result: dict[str, float] = json.loads(done.stdout)
        return result | {"command_seconds": time.perf_counter() - start}


def onednn_default() -> str:
    """TensorFlow's own choice on this machine: on only with AVX512 instructions for neural networks."""
    flags = set(Path("/proc/cpuinfo").read_text().split())
    return "1" if flags & {"avx512_vnni", "avx512_bf16", "avx_vnni", "amx_tile"} else "0"


DEFAULT_ONEDNN = onednn_default()


def throughput(runs: int) -> None:
    ours, keras = [], []
    for _ in range(runs):
        keras.append(program("keras_fit", 6400, 0, 2, plain=True)["images_per_second"])
        ours.append(fit("--limit", "6400", "--epochs", "2", "--augment", "none")["images_per_second"])
    row("training, images/s", ours, keras, higher_is_better=True)


def time_to_99(runs: int) -> None:
    ours, keras = [], []
    for _ in range(runs):
        reference = program("keras_fit", 60_000, 0.99, 6, plain=True)
        keras.append(reference["seconds"])
        print(f"  Keras after each epoch: {reference['accuracies']}, {keras[-1]:.0f} s", flush=True)
        result = fit("--epochs", "1", "--augment", "none", "--learning-rate", "2e-3")
        print(f"  trainer after one epoch: {result['test_accuracy']:.2%}, {result['train_seconds']:.0f} s", flush=True)
        ours.append(result["train_seconds"] if result["test_accuracy"] >= 0.99 else float("inf"))
    row("seconds of training to 99.0 % test accuracy", ours, keras, higher_is_better=False)


def accuracy(runs: int) -> None:
    for name, options in (
        ("--epochs 1 --augment none", ["--epochs", "1", "--augment", "none"]),
        ("defaults", []),
    ):
        results = [fit(*options, "--seed", str(seed)) for seed in range(runs)]
        accuracies = [100 * result["test_accuracy"] for result in results]
        seconds = [result["command_seconds"] for result in results]
        print(f"{name}: test accuracy {spread(accuracies)} %, command {spread(seconds)} s", flush=True)


def short_fit(runs: int) -> None:
    """One epoch of `trainer fit`, saved to a temporary store, and `trainer predict` with that model."""
    results, predict_seconds = [], []
    options = ("--epochs", "1", "--augment", "none", "--save", "--name", "mnist")
    for _ in range(runs):
        with tempfile.TemporaryDirectory() as home:
            results.append(fit(*options, BENTOML_HOME=home))
            predict_seconds += [predict(home) for _ in range(3)]
    for key, scale, unit in (
        ("images_per_second", 1, "images/s"),
        ("command_seconds", 1, "s for the command"),
        ("test_accuracy", 100, "% of the test images right"),
    ):
        print(f"--epochs 1 --augment none: {spread([scale * result[key] for result in results])} {unit}", flush=True)
    print(f"trainer predict: {spread(predict_seconds)} s", flush=True)


def predict(home: str) -> float:
    """Seconds of `trainer predict` for one image."""
    image = Path(home) / "image.png"
    Image.linear_gradient("L").save(image)
    start = time.perf_counter()
    done = subprocess.run(
        [BIN / "trainer", "predict", "mnist", image],
        env=os.environ | {"BENTOML_HOME": home},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(done.stderr)
    return time.perf_counter() - start


def input_pipeline(runs: int) -> None:
    results = [program("input_pipeline") for _ in range(runs)]
    for augment in ("none", "auto"):
        print(
            f"tf.data alone, --augment {augment}: {spread([result[augment] for result in results])} images/s",
            flush=True,
        )


def first_pass(runs: int, folder: Path) -> None:
    ours, keras = [], []
    with tempfile.TemporaryDirectory(dir=folder.parent if os.access(folder.parent, os.W_OK) else None) as scratch:
        link_files(folder, Path(scratch) / "images")
        for run in range(runs):
            keras.append(rate(program("keras_folder", f"{scratch}/images", plain=True)))
            ours.append(rate(program("trainer_folder", f"{scratch}/images", TRAINER_CACHE_DIR=f"{scratch}/cache{run}")))
    row(f"first pass over {FILES:,} JPEG files, images/s", ours, keras, higher_is_better=True)


def link_files(source: Path, target: Path) -> None:
    """FILES hard links (copies across file systems) to the JPEG files of `source`'s class folders."""
    files = sorted(source.rglob("*.jpg"))
    for index in range(FILES):
        file = files[index % len(files)]
        link = target / file.parent.name / f"{index:05}.jpg"
        link.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(file, link)
        except OSError:
            link.write_bytes(file.read_bytes())


def rate(result: dict[str, float]) -> float:
    return result["images"] / result["seconds"]


def command_line(runs: int) -> None:
    seconds = []
    for _ in range(runs):
        start = time.perf_counter()
        subprocess.run([BIN / "trainer", "--help"], stdout=subprocess.DEVNULL, check=True)
        seconds.append(time.perf_counter() - start)
    print(f"trainer --help: {spread(seconds)} s", flush=True)


def spread(values: Sequence[float]) -> str:
    return f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f}, n={len(values)})"


def row(name: str, ours: list[float], keras: list[float], *, higher_is_better: bool) -> None:
    ratio = statistics.median(ours) / statistics.median(keras)
    better = "higher" if higher_is_better else "lower"
    print(
        f"{name}: trainer {spread(ours)}, Keras {spread(keras)}, ratio {ratio:.2f} ({better} is better)",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, help="default: 3; with --quick 1")
    parser.add_argument("--folder", type=Path, help="class folders with JPEG files, for the first pass")
    parser.add_argument(
        "--only", default="", help="of throughput, time_to_99, accuracy, input, first_pass, command_line"
    )
    parser.add_argument("--quick", action="store_true", help="only --help, input, one epoch and predict, without Keras")
    options = parser.parse_args()
    runs: int = options.runs or (1 if options.quick else 3)
    parts: dict[str, Callable[[int], None]] = {
        "command_line": command_line,
        "throughput": throughput,
        "input": input_pipeline,
        "time_to_99": time_to_99,
        "accuracy": accuracy,
    }
    if options.quick:
        parts = {"command_line": command_line, "input": input_pipeline, "short_fit": short_fit}
    if options.folder:
        parts["first_pass"] = functools.partial(first_pass, folder=options.folder)
    print(hardware(), flush=True)
    for name, part in parts.items():
        if not options.only or name in options.only.split(","):
            part(runs)


if __name__ == "__main__":
    main()
