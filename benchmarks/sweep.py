"""Overhead of a sweep over its trainings: on this machine, and on two nodes of a Ray cluster on this machine.

    python benchmarks/sweep.py                 8 short trials with two workers, and the same trainings one by one,
                                               then on two nodes that are running already
    python benchmarks/sweep.py heads FOLDER    30 trials of the linear probe alone, on cached features
    python benchmarks/sweep.py thousand        1,000 trials of a stand-in on two nodes, one of which is killed three
                                               times

Each training has one core, alone or with two workers, so that half of their sum is the least time of a sweep.
"""

from __future__ import annotations

import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hardware import hardware

ROOT = Path(__file__).parents[1]
STAND_IN = ROOT / "tests" / "sweep" / "stand_in"
RATES = (0.0005, 0.0007, 0.001, 0.0014, 0.002, 0.0028, 0.004, 0.0056)
FIT = ("--dataset=builtin:digits", "--epochs=3")
HEADS = 30
TRIALS = 1000
KILLED_AT = (200, 400, 800)  # finished trials after which a node is killed
SWEEP = """\
method: grid
metric: {{name: val_accuracy, goal: maximize}}
parameters:
  {parameters}
command: ["${{env}}", "trainer", "fit", "--no-save", {options}, "${{args}}"]
"""


def timed(command: list[str], cores: set[int]) -> float:
    start = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", "trainer", *command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    os.sched_setaffinity(process.pid, cores)
    if process.wait():
        raise SystemExit(f"failed: trainer {' '.join(command)}")
    return time.perf_counter() - start


def write_sweep(name: str, parameters: str, options: tuple[str, ...]) -> str:
    Path(name).write_text(SWEEP.format(parameters=parameters, options=", ".join(options)))
    return name


@contextmanager
def nodes(cpus: int = 1) -> Iterator[Any]:
    """A cluster of two nodes on this machine."""
    from ray.cluster_utils import Cluster

    cluster = Cluster()
    try:
        for _ in range(2):
            add_node(cluster, cpus)
        yield cluster
    finally:
        cluster.shutdown()


def add_node(cluster: Any, cpus: int = 1) -> Any:
    return cluster.add_node(num_cpus=cpus, include_dashboard=False, object_store_memory=200 * 2**20)


def measure_overhead(cores: set[int]) -> None:
    fit = ["fit", *FIT, "--no-save", "--wandb=offline"]
    timed([*fit, "--run-dir=warm"], cores)  # fills the cache of decoded images
    alone = [timed([*fit, f"--learning-rate={rate}", f"--run-dir=r{rate}"], {min(cores)}) for rate in RATES]
    file = write_sweep("sweep.yaml", f"learning_rate: {{values: {list(RATES)}}}", FIT)
    together = timed(["sweep", file, "--workers=2"], cores)
    half = sum(alone) / 2
    print(f"one by one {sum(alone):.0f} s, half of it {half:.0f} s", flush=True)
    print(f"two workers {together:.0f} s, ratio {together / half:.2f}", flush=True)
    Path("runs").rename("local-runs")
    with nodes() as cluster:
        together = timed(["sweep", file, f"--cluster={cluster.address}"], cores)
    print(f"two nodes {together:.0f} s, ratio {together / half:.2f}")


def measure_heads(folder: Path, cores: set[int]) -> None:
    options = (f"--dataset=folder:{folder}", "--fine-tune=none")
    timed(["fit", *options, "--no-save", "--wandb=offline", "--run-dir=warm"], cores)
    parameters = "flip: {values: ['on', 'off', auto]}\n  class_weights: {values: [none, balanced]}\n"
    seeds = f"  seed: {{values: {list(range(HEADS // 6))}}}"
    seconds = timed(["sweep", write_sweep("heads.yaml", parameters + seeds, options), "--workers=2"], cores)
    print(f"{HEADS} heads in {seconds:.0f} s: {seconds / HEADS:.2f} s a trial")


def measure_thousand() -> None:
    """The driver runs in this process, whose main thread's CPU time is its own."""
    from trainer.sweep.cluster import ClusterOptions, connect
    from trainer.sweep.driver import Driver
    from trainer.sweep.search import PARAMS, Search
    from trainer.sweep.sweep import read_sweep

    class Counted(Search):
        ended = 0

        def finish(self, *arguments: Any, **options: Any) -> None:
            super().finish(*arguments, **options)
            self.ended += 1

    log = Path("log")
    log.mkdir()
    os.environ |= {
        "PYTHONPATH": os.pathsep.join((str(STAND_IN), os.environ.get("PYTHONPATH", ""))),
        "STAND_IN": str(STAND_IN / "stand_in_fit.py"),
        "STAND_IN_LOG": str(log.absolute()),
        "STAND_IN_EPOCH_S": "0.01",
    }
    file = write_sweep("thousand.yaml", f"seed: {{min: 0, max: {TRIALS - 1}}}", ("--dataset=builtin:digits",))
    spec, sources = read_sweep(Path(file))
    marks: dict[int, tuple[float, int]] = {}  # finished trials → CPU seconds of the driver, its memory in KiB
    search = Counted(spec, Path("runs/thousand"))
    with nodes(cpus=4) as cluster, search:
        with connect(ClusterOptions(cluster.address, trial_cpus=1), search, sources, None) as executor:
            driver = Driver(search, executor, max_trials=None, retry_failed=False)
            to_kill = list(KILLED_AT)

            def refresh() -> None:
                finished = search.ended
                marks[finished] = (time.thread_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
                if to_kill and finished >= to_kill[0]:
                    del to_kill[0]
                    (second,) = cluster.worker_nodes
                    cluster.remove_node(second, allow_graceful=False)
                    add_node(cluster, 4)

            start = time.perf_counter()
            driver.run(refresh)
            seconds = time.perf_counter() - start
        params = {json.dumps(trial.user_attrs[PARAMS]) for trial in search.finished()}
        events = [json.loads(line) for one in log.iterdir() for line in one.read_text().splitlines()]
        started = sum(event["what"] == "started" for event in events)
        print(
            f"{len(params)} distinct params in {seconds:.0f} s, {started} starts, {len(search.open_failures())} failed"
        )
    for first, last in ((50, 150), (450, 550), (TRIALS - 100, TRIALS)):
        inside = [(finished, *mark) for finished, mark in sorted(marks.items()) if first <= finished <= last]
        (count_a, cpu_a, _), (count_b, cpu_b, memory) = inside[0], inside[-1]
        each = 1000 * (cpu_b - cpu_a) / (count_b - count_a)
        print(f"trials {count_a} to {count_b}: {each:.1f} ms of the driver each, {memory / 1024:.0f} MB at most")
    print(f"median time of a trial {statistics.median(map(seconds_of, search.finished())):.2f} s")


def seconds_of(trial: Any) -> float:
    return float(trial.duration.total_seconds())


def main() -> None:
    cores = set(sorted(os.sched_getaffinity(0))[:2])
    part = sys.argv[1] if len(sys.argv) > 1 else "overhead"
    folder = Path(sys.argv[2]).absolute() if part == "heads" else Path()
    print(hardware(), flush=True)
    with tempfile.TemporaryDirectory() as own:
        os.chdir(own)
        os.environ |= {"TRAINER_CACHE_DIR": f"{own}/cache", "RAY_USAGE_STATS_ENABLED": "0"}
        if part == "heads":
            measure_heads(folder, cores)
        elif part == "thousand":
            measure_thousand()
        else:
            measure_overhead(cores)


if __name__ == "__main__":
    main()
