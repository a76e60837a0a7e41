"""Swaps in place under load: failed and wrong answers, latency and memory; prints one table.

    python benchmarks/swap.py [MODEL [OTHER]] [--image FILE] [--swaps 20] [--load 0.5] [--between 4]

Two models of the store (default: the newest and a copy of it) become two versions in a store of their own. A server
watches it, answers a share of its capacity, and each swap promotes the other version. A swap counts from its promotion
until the first answer of that version; "between" are the seconds after it. The load generator shares the machine.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hardware import hardware
from load import LoadResult, closed_loop, open_loop, request_bytes
from serve import Server, one_digit, serving

from trainer import artifact
from trainer.artifact import store
from trainer.artifact.engine import load_engine
from trainer.artifact.prediction import prediction
from trainer.images.decode import decode

NAME = "swapped"
WATCH_S = "0.5"
CONNECTIONS = 64
MAX_DIFFERENCE = 1e-3  # between two probabilities of an engine, in batches of different size


@dataclass
class Versions:
    """The versions that a server may answer with, and the answers that are right."""

    expected: dict[str, tuple[str, float]]  # tag → label and probability
    last: str = ""  # tag in the last answer

    def is_correct(self, body: bytes) -> bool:
        """Whether an answer is right for the version that it names."""
        return self.is_right(json.loads(body))

    def is_right(self, answer: dict[str, Any]) -> bool:
        self.last = answer["model"]
        label, probability = self.expected[self.last]
        return bool(answer["label"] == label and abs(answer["probability"] - probability) < MAX_DIFFERENCE)


@dataclass
class Measurement:
    """Loads of all swaps, and of the time between them."""

    swaps: list[LoadResult] = field(default_factory=list)
    between: list[LoadResult] = field(default_factory=list)
    memory_mb: list[float] = field(default_factory=list)  # of the worker, after each swap


def expected_answer(stored: store.StoredModel, image: bytes) -> tuple[str, float]:
    loaded = artifact.load(stored.path)
    outputs = load_engine(loaded).predict(decode(image, loaded.pixels)[None])
    answer = prediction({name: rows[0] for name, rows in outputs.items()}, loaded.class_names, loaded.threshold)
    return answer["label"], answer["probability"]


def measure(
    server: Server, image: bytes, tags: list[str], versions: Versions, swaps: int, share: float, between_s: float
) -> Measurement:
    request = request_bytes("/predict", image, "application/octet-stream")
    closed_loop(server.port, request, connections=CONNECTIONS, seconds=2)
    capacity = closed_loop(server.port, request, connections=CONNECTIONS, seconds=5).rate
    print(f"{capacity:.0f} answers/s with {CONNECTIONS} connections; the load is {share * capacity:.0f}/s", flush=True)
    measured = Measurement()

    def load(seconds: float, until: str = "") -> LoadResult:
        return open_loop(
            server.port,
            request,
            rate=share * capacity,
            seconds=seconds,
            connections=CONNECTIONS,
            keep_going=lambda: bool(until) and versions.last != until,
            is_correct=versions.is_correct,
        )

    load(between_s)
    for swap in range(swaps):
        tag = tags[(swap + 1) % 2]
        store.promote(tag)
        measured.swaps.append(load(0, until=tag))
        measured.between.append(load(between_s))
        measured.memory_mb.append(server.largest_worker_mb())
    return measured


def show(name: str, loads: list[LoadResult]) -> float:
    """Print a row of the table; returns the p99 in ms."""
    total = LoadResult(sum(load.seconds for load in loads))
    for load in loads:
        total.statuses += load.statuses
        total.latencies += load.latencies
        total.wrong += load.wrong
    p50, p99 = (1000 * total.percentile(fraction) for fraction in (0.5, 0.99))
    seconds = total.seconds / len(loads)
    print(
        f"| {name} | {total.sent:,} | {total.failed} | {total.wrong} | {total.statuses[-1]} | {p50:.1f} | {p99:.1f} "
        f"| {1000 * max(total.latencies):.0f} | {seconds:.1f} |",
        flush=True,
    )
    if total.failed:
        print(f"{name}: {dict(total.statuses)}", file=sys.stderr)
    return p99


def add_models_and_image(parser: argparse.ArgumentParser) -> None:
    """Arguments that `models_and_image` reads."""
    parser.add_argument("models", nargs="*", metavar="MODEL", help="one or two tags in the model store")
    parser.add_argument("--image", type=Path, help="default: one of the built-in digits, 8x8")


def models_and_image(options: argparse.Namespace) -> tuple[list[store.StoredModel], bytes]:
    """The models (default: the newest) and the bytes of the image that the command line names."""
    image = options.image.read_bytes() if options.image else one_digit()
    return [store.find(tag) for tag in options.models or [None]], image


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_models_and_image(parser)
    parser.add_argument("--swaps", type=int, default=20)
    parser.add_argument("--load", type=float, default=0.5, help="share of the capacity")
    parser.add_argument("--between", type=float, default=4, help="seconds after each swap")
    options = parser.parse_args()
    found, image = models_and_image(options)
    print(hardware(), *(model.tag for model in found), flush=True)
    with tempfile.TemporaryDirectory() as home:
        os.environ |= {"BENTOML_HOME": home, "TRAINER_WATCH_S": WATCH_S}
        tags = [store.publish(model.path, NAME) for model in (found[0], found[-1])]
        store.promote(tags[0])
        stored = [store.find(tag) for tag in tags]
        versions = Versions({model.tag: expected_answer(model, image) for model in stored})
        with serving("trainer", dataclasses.replace(stored[0], tag=NAME)) as server:
            measured = measure(server, image, tags, versions, options.swaps, options.load, options.between)
    print("| | requests | failed | wrong | not sent | p50 ms | p99 ms | longest ms | s each |")
    print("|---|---|---|---|---|---|---|---|---|")
    during, between = show("swaps", measured.swaps), show("between", measured.between)
    memory = measured.memory_mb
    print(f"p99 during a swap is {during / between:.2f} times that between")
    print(
        f"memory after swap 2: {memory[1]:.0f} MB, after swap {len(memory)}: {memory[-1]:.0f} MB "
        f"({memory[-1] / memory[1] - 1:+.1%}), at most {max(memory):.0f} MB"
    )


if __name__ == "__main__":
    main()
