"""Latency and CPU time of single answers, by settings, after pauses, and beside refused tokens; prints tables.

    python benchmarks/latency.py [--model TAG] [--image FILE] [--only settings,pauses,tokens] [--rounds 9]

The servers of a table run at the same time and are asked in turn, so that what else the machine does meets them all.
The load generator shares the machine: ratios and CPU time compare.
"""

from __future__ import annotations

import argparse
import os
import random
import secrets
import statistics
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from unittest.mock import patch

import psutil
from hardware import hardware
from load import LoadResult, closed_loop, open_loop, request_bytes
from serve import Server, one_digit, serving

from trainer.artifact import store
from trainer.serving.tokens import Tokens

CONNECTIONS = (1, 8)
REQUESTS = 400  # in a round
PAUSES_S = {0.0: 40, 1.0: 40, 10.0: 12, 60.0: 4}  # pause → requests in all, in random order
TRACES = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9"}  # no collector is there: its own cost is not measured
# name → environment, and headers of the requests
SETTINGS: dict[str, tuple[dict[str, str], dict[str, str]]] = {
    "one worker": ({}, {}),
    "workers = cores": ({"TRAINER_WORKERS": str(os.cpu_count())}, {}),
    "traces, not recorded": (TRACES, {"traceparent": f"00-{'1' * 32}-{'1' * 16}-00"}),
    "traces, recorded": (TRACES, {}),
}
LOAD = 0.25  # of the capacity: rate of requests with the token, and of others beside them
TOKEN = secrets.token_hex(32)


@contextmanager
def started(model: store.StoredModel, variables: dict[str, str]) -> Iterator[Server]:
    with ExitStack() as stack:
        with patch.dict(os.environ, variables):  # not while it runs: the next server has others
            server = stack.enter_context(serving("trainer", model))
        yield server


def cpu_s(server: Server) -> float:
    """CPU seconds of the server's processes so far."""
    parent = psutil.Process(server.process.pid)
    times = [process.cpu_times() for process in [parent, *parent.children(recursive=True)]]
    return sum(each.user + each.system for each in times)


def post(image: bytes, headers: dict[str, str] | None = None) -> bytes:
    return request_bytes("/predict", image, "application/octet-stream", headers)


def median_ms(values: list[float]) -> float:
    return 1000 * statistics.median(values)


def compare_settings(model: store.StoredModel, image: bytes, rounds: int) -> None:
    loads: dict[tuple[str, int], list[LoadResult]] = {}
    cpu: dict[tuple[str, int], list[float]] = {}
    with ExitStack() as stack:
        servers = {name: stack.enter_context(started(model, given)) for name, (given, _) in SETTINGS.items()}
        for turn in range(rounds + 1):
            for name, server in servers.items():
                for connections in CONNECTIONS:
                    request = post(image, SETTINGS[name][1])
                    before = cpu_s(server)
                    load = closed_loop(server.port, request, connections=connections, requests=REQUESTS)
                    if turn:  # the first is a warm-up
                        loads.setdefault((name, connections), []).append(load)
                        cpu.setdefault((name, connections), []).append((cpu_s(server) - before) / REQUESTS)
    print("| server | connections | p50 ms | p99 ms | answers/s | CPU ms an answer | of one worker's | errors |")
    print("|---|---|---|---|---|---|---|---|")
    for (name, connections), results in loads.items():
        alone = cpu["one worker", connections]
        ratio = statistics.median(mine / other for mine, other in zip(cpu[name, connections], alone, strict=True))
        p50, p99 = (statistics.median(1000 * load.percentile(share) for load in results) for share in (0.5, 0.99))
        rate = statistics.median(load.rate for load in results)
        print(
            f"| {name} | {connections} | {p50:.1f} | {p99:.1f} | {rate:.0f} | {median_ms(cpu[name, connections]):.2f} "
            f"| {ratio:.2f} | {sum(load.failed for load in results)} |",
            flush=True,
        )


def compare_pauses(model: store.StoredModel, image: bytes) -> None:
    """Latency of the first request after a pause, beside one that the network has no part in."""
    requests = {"/predict": post(image), "/v2": b"GET /v2 HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"}
    latencies: dict[tuple[str, float], list[float]] = {}
    pauses = [(path, pause) for pause, count in PAUSES_S.items() for path in requests for _ in range(count)]
    random.Random(0).shuffle(pauses)
    with started(model, {}) as server:
        for request in requests.values():
            closed_loop(server.port, request, connections=1, requests=REQUESTS)
        for path, pause in pauses:
            time.sleep(pause)
            load = closed_loop(server.port, requests[path], connections=1, requests=1)
            latencies.setdefault((path, pause), []).append(load.latencies[0])
    print(
        "| request | after a pause of | n | median ms | longest ms | of no pause |",
        "|---|---|---|---|---|---|",
        sep="\n",
    )
    for path in requests:
        base = median_ms(latencies[path, 0.0])
        for pause in PAUSES_S:
            found = latencies[path, pause]
            median, longest = median_ms(found), 1000 * max(found)
            print(f"| {path} | {pause:g} s | {len(found)} | {median:.1f} | {longest:.1f} | {median / base:.2f} |")


def compare_tokens(model: store.StoredModel, image: bytes, rounds: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "tokens"
        file.write_text(f"{TOKEN}\n")
        time_refusals(Tokens(file))
        with started(model, {"TRAINER_TOKEN_FILE": str(file)}) as server, ProcessPoolExecutor(1) as pool:
            measure_flood(server, image, rounds, pool)


def time_refusals(tokens: Tokens, rounds: int = 20_000) -> None:
    """Time of a refusal, by how many characters of the token are right."""
    for name, guess in {"short": lambda right: TOKEN[:right], "same length": _same_length}.items():
        given = {right: [(b"authorization", b"Bearer " + guess(right).encode())] for right in (0, 1, 32, 63)}
        seconds = {right: [0.0] * rounds for right in given}
        for turn in range(rounds):
            for right in random.sample(list(given), len(given)):
                start = time.perf_counter()
                refusal = tokens.refusal(given[right])
                seconds[right][turn] = time.perf_counter() - start
                assert refusal
        medians = {right: 1e6 * statistics.median(each) for right, each in seconds.items()}
        cells = ", ".join(f"{right} of 64: {median:.2f}" for right, median in medians.items())
        print(f"µs to refuse a token ({name}) of which the first characters are right: {cells}", flush=True)


def _same_length(right: int) -> str:
    """A wrong token whose first characters are right."""
    return TOKEN[:right] + "".join("0" if char != "0" else "1" for char in TOKEN[right:])


def measure_flood(server: Server, image: bytes, rounds: int, pool: ProcessPoolExecutor) -> None:
    """Answers beside as many requests with a wrong token, and beside as many more with the right one."""
    valid = post(image, {"Authorization": f"Bearer {TOKEN}"})
    floods = {"alone": None, "refused": post(image, {"Authorization": f"Bearer {_same_length(63)}"}), "valid": valid}
    loads: dict[str, list[LoadResult]] = {name: [] for name in floods}
    cpu: dict[str, list[float]] = {name: [] for name in floods}
    rate = LOAD * closed_loop(server.port, valid, connections=8, requests=4 * REQUESTS).rate
    send = partial(open_loop, server.port, rate=rate, seconds=REQUESTS / rate, connections=32)
    for _ in range(rounds):
        for name, flood in floods.items():
            before = cpu_s(server)
            beside = pool.submit(send, flood) if flood else None
            loads[name].append(send(valid))
            if beside:
                beside.result()
            cpu[name].append((cpu_s(server) - before) / REQUESTS)
    print(f"{rate:.0f} requests/s with a token, and as many others:")
    print("| others | p50 ms | of alone | p99 ms | of alone | server's CPU ms for one of these | failed |")
    print("|---|---|---|---|---|---|---|")
    for name, results in loads.items():
        cells = []
        for share in (0.5, 0.99):
            values = [load.percentile(share) for load in results]
            ratios = [mine / alone.percentile(share) for mine, alone in zip(values, loads["alone"], strict=True)]
            cells += [f"{median_ms(values):.1f}", f"{statistics.median(ratios):.2f}"]
        cost = median_ms([mine - alone for mine, alone in zip(cpu[name], cpu["alone"], strict=True)])
        print(f"| {name} | {' | '.join(cells)} | {cost:.2f} | {sum(load.failed for load in results)} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="tag in the model store (default: the newest)")
    parser.add_argument("--image", type=Path, help="default: one of the built-in digits, 8x8")
    parser.add_argument("--only", default="settings,pauses,tokens", help="of settings, pauses, tokens")
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    model = store.find(options.model)
    image = options.image.read_bytes() if options.image else one_digit()
    print(f"{hardware()}, {model.tag}", flush=True)
    parts = options.only.split(",")
    if "settings" in parts:
        compare_settings(model, image, options.rounds)
    if "tokens" in parts:
        compare_tokens(model, image, options.rounds)
    if "pauses" in parts:
        compare_pauses(model, image)


if __name__ == "__main__":
    main()
