"""Hours of mixed and hostile traffic: no worker lost, no wrong answer, nothing that grows; prints one table.

    python benchmarks/soak.py [MODEL [OTHER]] [--minutes 60] [--slow 1000] [--seed 1]

Two models of the store (default: the newest and a copy of it) become two versions in a store of their own, of which
each round promotes the other while its traffic runs (`soak_traffic`). After each round all connections are closed and
the server is measured; a line is fitted to the measurements after the first third. Where rounds last 75 s, in ten
minutes or more, clients that are idle, slow or do not read stay until the server ends them: without the limit for
refused bodies (`HttpProtocol.on_response_complete`) half of the slow ones stayed open.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from random import Random

import httpx
import numpy as np
import psutil
import uvloop
from hardware import hardware
from mutated_decoding import Mutator
from seed_images import drawn
from serve import serving
from soak_traffic import Traffic
from swap import NAME, WATCH_S, Versions, add_models_and_image, expected_answer, models_and_image

from trainer.artifact import store
from trainer.machine import raise_open_file_limit

SETTINGS = {"TRAINER_WATCH_S": WATCH_S, "TRAINER_WORKERS": "2"}  # of the server
ROUNDS = 8  # at least
MAX_ROUND_S = 75.0  # the server ends slow clients after 30 s, or 60 if it refuses their bodies first
SETTLE_S = 60.0  # at most, until all connections are closed and the promoted version is served
STOP_S = 30.0
WARM_UP_SHARE = 1 / 3
# Growth along the fitted line, over all rounds after the warm-up, that counts as none.
MAX_GROWTH = {"memory, MB": 30.0, "descriptors": 6.0, "threads": 6.0, "metric series": 20.0}

Measured = dict[str, float]  # by the names of MAX_GROWTH


@dataclass
class Report:
    """Measurements and answers of all rounds."""

    rounds: list[Measured]
    counts: Counter[str]
    failures: list[str]

    def growth(self) -> Measured:
        """Growth of each measured value along the line of least squares."""
        rounds = self.rounds[int(len(self.rounds) * WARM_UP_SHARE) :]
        if len(rounds) < 2:  # a worker has ended
            return dict.fromkeys(MAX_GROWTH, 0.0)
        found = {}
        for name in MAX_GROWTH:
            values = [measured[name] for measured in rounds]
            slope, _ = np.polyfit(range(len(values)), values, 1)
            found[name] = float(slope) * (len(values) - 1)
        return found

    def all_failures(self) -> list[str]:
        growth = self.growth()
        return self.failures + [
            f"{name}: growth of {growth[name]:.3g}" for name, limit in MAX_GROWTH.items() if growth[name] > limit
        ]


def soak(tags: Sequence[str], image: bytes, *, seconds: float, slow: int, seed: int) -> Report:
    """Serve two versions in turn from the current store, with SETTINGS in the environment.

    `slow`: connections that send a byte a second.
    """
    stored = [store.find(tag) for tag in tags]
    store.promote(tags[0])
    versions = Versions({model.tag: expected_answer(model, image) for model in stored})
    with serving("trainer", replace(stored[0], tag=NAME)) as server:
        round_s = min(MAX_ROUND_S, seconds / ROUNDS)
        patient, images = round_s == MAX_ROUND_S, Mutator(seed, drawn())
        traffic = Traffic(server.port, stored[0], image, versions, images, slow, patient, Random(seed))
        workers = psutil.Process(server.process.pid).children(recursive=True)
        report = Report([], traffic.counts, traffic.failures)
        start = time.monotonic()
        while len(report.rounds) < ROUNDS or time.monotonic() - start < seconds:
            tag = tags[(len(report.rounds) + 1) % 2]
            store.promote(tag)
            uvloop.run(_run(traffic, round_s))
            if ended := [f"{worker} has ended" for worker in workers if not worker.is_running()]:
                report.failures += ended
                break
            _settle(server.port, workers, tag, report.failures)
            traffic.close()
            report.rounds.append(_measure(server.port, workers))
            print(f"{time.monotonic() - start:.0f} s: {report.rounds[-1]}", flush=True)
        server.process.terminate()
        try:
            server.process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            report.failures.append(f"the server does not stop within {STOP_S:.0f} s")
    return report


async def _run(traffic: Traffic, seconds: float) -> None:
    await traffic.run_until(asyncio.get_running_loop().time() + seconds)


def _settle(port: int, workers: Sequence[psutil.Process], tag: str, failures: list[str]) -> None:
    """Wait until no client is connected and `tag` is served."""
    deadline = time.monotonic() + SETTLE_S
    while True:
        served = httpx.get(f"http://127.0.0.1:{port}/model", trust_env=False).json()["model"]
        found = [connection for worker in workers for connection in worker.net_connections("tcp")]
        connected = sum(connection.status == psutil.CONN_ESTABLISHED for connection in found)
        if served == tag and not connected:
            return
        if time.monotonic() > deadline:
            failures.append(
                f"after {SETTLE_S:.0f} s {connected} connections are open, and {served} is served, not {tag}"
            )
            return
        time.sleep(0.2)


def _measure(port: int, workers: Sequence[psutil.Process]) -> Measured:
    """Sums over the workers. Memory: what is their own alone."""
    metrics = httpx.get(f"http://127.0.0.1:{port}/metrics", trust_env=False).text.splitlines()
    return {
        "memory, MB": round(sum(worker.memory_full_info().uss for worker in workers) / 1e6, 1),
        "descriptors": sum(worker.num_fds() for worker in workers),
        "threads": sum(worker.num_threads() for worker in workers),
        "metric series": sum(not line.startswith("#") for line in metrics),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_models_and_image(parser)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--slow", type=int, default=1000, help="connections that send a byte a second")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    found, image = models_and_image(options)
    raise_open_file_limit()
    print(f"{hardware()}, {', '.join(model.tag for model in found)}, seed {options.seed}", flush=True)
    with tempfile.TemporaryDirectory() as home:
        os.environ |= {"BENTOML_HOME": home, **SETTINGS}
        tags = [store.publish(model.path, NAME) for model in (found[0], found[-1])]
        report = soak(tags, image, seconds=60 * options.minutes, slow=options.slow, seed=options.seed)
    print("| | rounds | growth | limit |", "|---|---|---|---|", sep="\n")
    growth = report.growth()
    for name, limit in MAX_GROWTH.items():
        values = ", ".join(f"{measured[name]:g}" for measured in report.rounds)
        print(f"| {name} | {values} | {growth[name]:.3g} | {limit:g} |")
    print(*(f"{name}: {count:,}" for name, count in sorted(report.counts.items())), sep="; ")
    failures = report.all_failures()
    print(*(failures or ["no failures"]), sep="\n")
    raise SystemExit(1 if failures else 0)


if __name__ == "__main__":
    main()
