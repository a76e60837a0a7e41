"""More load than a server can take: good answers, refusals, and the time until it is as before; prints one table.

    python benchmarks/overload.py [--model TAG] [--image FILE] [--times 3] [--seconds 300] [--rounds 1]

A closed loop of 128 connections gives the peak rate; then an open loop sends `times` as much for `seconds`, whether or
not earlier requests are answered; then the closed loop again, a second at a time, until its rate is back at 85 % of the
peak. The load generator shares the machine: the table shows its share of the processors. Where other programs use them,
too, compare CPU time, not rates. Nothing is random. `--seconds 10` is the short form.
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path

import psutil
from hardware import hardware
from load import LoadResult, closed_loop, open_loop, percentile
from serve import Server, make_request, one_digit, serving

from trainer.artifact import store

CONNECTIONS = 128  # of the closed loop
MAX_CONNECTIONS = 2000  # of the open loop
GOOD_SHARE = 0.85
MAX_RECOVERY_S = 30


def server_cpu_s(server: Server) -> float:
    """CPU seconds of the server's processes, from their start."""
    parent = psutil.Process(server.process.pid)
    times = [process.cpu_times() for process in (parent, *parent.children(recursive=True))]
    return sum(spent.user + spent.system for spent in times)


def recovery_s(server: Server, request: bytes, peak: float) -> float:
    """Seconds until the closed loop is at GOOD_SHARE of the peak; at most MAX_RECOVERY_S."""
    start = time.perf_counter()
    while (passed := time.perf_counter() - start) < MAX_RECOVERY_S:
        load = closed_loop(server.port, request, connections=CONNECTIONS, seconds=1)
        if load.rate >= GOOD_SHARE * peak and load.statuses[200] == load.statuses.total():
            return passed
    return MAX_RECOVERY_S


def measure(server: Server, request: bytes, times: float, seconds: float) -> None:
    """Print a row of the table."""
    before = server_cpu_s(server)
    calm = closed_loop(server.port, request, connections=CONNECTIONS, seconds=5)
    good_ms = 1000 * (server_cpu_s(server) - before) / calm.statuses[200]
    before, generator, megabytes = server_cpu_s(server), time.process_time(), server.largest_worker_mb()
    load = open_loop(server.port, request, rate=times * calm.rate, seconds=seconds, connections=MAX_CONNECTIONS)
    server_s, generator_s = server_cpu_s(server) - before, time.process_time() - generator
    recovered = recovery_s(server, request, calm.rate)
    refused = load.refusal_latencies
    # Of the CPU time, whatever the answers did not take at the peak.
    refusal_ms = (1000 * server_s - good_ms * load.statuses[200]) / max(1, len(refused))
    cells = [
        f"{calm.rate:.0f}",
        f"{load.statuses.total() / load.seconds:.0f}",
        f"{load.rate:.0f} ({load.rate / calm.rate:.0%})",
        f"{1000 * load.percentile(0.5):.0f}, {1000 * load.percentile(0.99):.0f}",
        f"{len(refused) / load.seconds:.0f}",
        f"{1000 * percentile(refused, 0.5):.0f}, {1000 * percentile(refused, 0.99):.0f}",
        others(load),
        f"{good_ms:.2f}, {refusal_ms:.3f}",
        f"{server_s / load.seconds:.2f}, {generator_s / load.seconds:.2f}",
        f"{recovered:.0f}",
        f"{megabytes:.0f}, {server.largest_worker_mb():.0f}",
    ]
    print(f"| {' | '.join(cells)} |", flush=True)


def others(load: LoadResult) -> str:
    """Counts of whatever is neither an answer nor a refusal."""
    names = {0: "connection lost", -1: "not sent"}
    found = {status: count for status, count in sorted(load.statuses.items()) if status not in (200, 503)}
    return ", ".join(f"{count} {names.get(status, status)}" for status, count in found.items()) or "0"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="tag in the model store (default: the newest)")
    parser.add_argument("--image", type=Path, help="default: one of the built-in digits, 8x8")
    parser.add_argument("--times", type=float, default=3, help="the peak rate, this often")
    parser.add_argument("--seconds", type=float, default=300)
    parser.add_argument("--rounds", type=int, default=1, help="rows of the table, all of one server")
    options = parser.parse_args()
    model = store.find(options.model)
    image = options.image.read_bytes() if options.image else one_digit()
    load = f"{options.times:g} times the peak for {options.seconds:g} s"
    print(f"{hardware()}, {model.tag}, {load}; processes that want to run: {os.getloadavg()[0]:.1f}")
    head = (
        "peak, answers/s",
        "requests/s",
        "good answers/s (of the peak)",
        "p50, p99 ms",
        "refused/s",
        "p50, p99 ms",
        "others",
        "CPU ms of an answer, a refusal",
        "CPUs of the server, the generator",
        "s until as before",
        "MB before, after",
    )
    print(f"| {' | '.join(head)} |\n|{'---|' * len(head)}", flush=True)
    with serving("trainer", model) as server:
        request = make_request("trainer", image, model)
        closed_loop(server.port, request, connections=CONNECTIONS, seconds=2)
        for _ in range(options.rounds):
            measure(server, request, options.times, options.seconds)


if __name__ == "__main__":
    main()
