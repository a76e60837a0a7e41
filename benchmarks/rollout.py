"""Rolling updates under load on this machine's Docker Swarm; prints one table.

    python benchmarks/rollout.py OLD_IMAGE NEW_IMAGE [--updates 5] [--load 0.5]

Measures the cost of one start. Then deploys `deploy/stack.yaml` with OLD_IMAGE under a separate name and port, measures
its capacity, and sends half of that load while `make rollout` switches the replicas to NEW_IMAGE, back to OLD_IMAGE,
and so on. The load generator shares the machine. `bentoml containerize` makes the images.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
from hardware import hardware
from load import LoadResult, closed_loop, open_loop, request_bytes
from serve import one_digit

PROJECT = Path(__file__).parents[1]
NAME = "trainer-rollout"
SERVICE = f"{NAME}_classifier"
READY_TIMEOUT_S = 120
CONNECTIONS = 256


@dataclass(frozen=True)
class Deployment:
    """Running stack, reached at its port on loopback."""

    port: int

    def rollout(self, image: str) -> subprocess.Popen[str]:
        """Starts `make rollout`; it ends when the last replica is replaced, or when a failed update is rolled back."""
        return _make("rollout", f"IMAGE={image}")

    def rollback(self) -> subprocess.Popen[str]:
        """Starts `make rollback`."""
        return _make("rollback")

    def tags(self, requests: int = 40) -> set[str]:
        """Tags of the models that answer, over some requests to all replicas."""
        return {json.loads(self.get("/model"))["model"] for _ in range(requests)}

    def get(self, path: str) -> bytes:
        return self._request("GET", path)

    def predict(self, image: bytes) -> bytes:
        return self._request("POST", "/predict", image)

    def _request(self, method: str, path: str, body: bytes | None = None) -> bytes:
        url = f"http://127.0.0.1:{self.port}{path}"
        return httpx.request(method, url, content=body, timeout=5, trust_env=False).raise_for_status().content


@contextmanager
def deployed(image: str) -> Iterator[Deployment]:
    """`make deploy`, ready to answer; the stack is removed at the end."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        deployment = Deployment(listener.getsockname()[1])
    try:
        _output(_make("deploy", f"IMAGE={image}", f"PORT={deployment.port}"))
        wait_for(lambda: len(containers()) == 2 and deployment.get("/readyz") is not None)
        yield deployment
    finally:
        _output(_docker("stack", "rm", NAME))
        # Docker removes the network last; the next deployment needs its name.
        wait_for(lambda: not _output(_docker("network", "ls", "--quiet", "--filter", f"name={NAME}")))


def containers() -> list[str]:
    """Ids of the healthy replicas."""
    label = f"label=com.docker.swarm.service.name={SERVICE}"
    return _output(_docker("ps", "--quiet", "--filter", label, "--filter", "health=healthy")).split()


def wait_for(condition: Callable[[], bool]) -> float:
    """Waits until the condition holds; returns the seconds. A failed request counts as False."""
    start = time.monotonic()
    while time.monotonic() - start < READY_TIMEOUT_S:
        try:
            if condition():
                return time.monotonic() - start
        except (httpx.HTTPError, OSError):
            pass
        time.sleep(0.2)
    raise SystemExit(f"{NAME}: not in the expected state after {READY_TIMEOUT_S} s; see docker service ps {SERVICE}")


def capacity(port: int, request: bytes) -> float:
    """Responses with status 200 per second, with as many connections as the later measurements use."""
    return closed_loop(port, request, connections=CONNECTIONS, seconds=5).rate


def during(
    process: subprocess.Popen[str], port: int, request: bytes, rate: float, is_correct: Callable[[bytes], bool]
) -> LoadResult:
    """Steady load until the process ends."""
    return open_loop(
        port,
        request,
        rate=rate,
        seconds=1,
        connections=CONNECTIONS,
        keep_going=lambda: process.poll() is None,
        is_correct=is_correct,
    )


def start_cost(image: str) -> tuple[float, float]:
    """Seconds from `docker run` until the replica is ready, and the CPU seconds of its container until then."""
    container = _output(_docker("run", "--detach", "--cpus=1", "--publish=127.0.0.1::3000", image)).strip()
    try:
        port = int(_output(_docker("port", container, "3000")).strip().rpartition(":")[2])
        seconds = wait_for(lambda: Deployment(port).get("/readyz") is not None)
        usage = _output(
            _docker(
                "exec",
                container,
                "sh",
                "-c",
                "cat /sys/fs/cgroup/cpu.stat /sys/fs/cgroup/cpuacct/cpuacct.usage 2>/dev/null; true",
            )
        )
        words = usage.split()
        if "usage_usec" in words:
            return seconds, int(words[words.index("usage_usec") + 1]) / 1e6
        return seconds, int(words[-1]) / 1e9  # cgroup v1
    finally:
        _output(_docker("rm", "--force", container))


def _make(*arguments: str) -> subprocess.Popen[str]:
    command = ["make", "--silent", *arguments, f"STACK={NAME}"]
    return subprocess.Popen(
        command, cwd=PROJECT, env=os.environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def _docker(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(["docker", *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def _output(process: subprocess.Popen[str]) -> str:
    output, _ = process.communicate()
    if process.returncode:
        raise SystemExit(f"{process.args!r}: exit {process.returncode}: {output}")
    return output


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("old")
    parser.add_argument("new")
    parser.add_argument("--updates", type=int, default=5)
    parser.add_argument("--load", type=float, default=0.5, help="share of the capacity")
    options = parser.parse_args()

    print(hardware(), flush=True)
    request = request_bytes("/predict", one_digit(), "image/png")
    starts = [start_cost(options.old) for _ in range(3)]
    ready, cpu = (statistics.median(values) for values in zip(*starts, strict=True))
    print(f"a start takes {cpu:.1f} CPU seconds and {ready:.1f} s until it is ready, alone (medians of 3)", flush=True)
    with deployed(options.old) as deployment:
        expected = b'"label":' + json.dumps(json.loads(deployment.predict(one_digit()))["label"]).encode()
        limit = capacity(deployment.port, request)
        rate = options.load * limit
        print(f"two replicas answer {limit:.0f} requests/s; the load from now on is {rate:.0f}/s\n")
        print("| | requests | failed | wrong | p50 ms | p99 ms | s |\n|---|---|---|---|---|---|---|", flush=True)

        def steady(seconds: float) -> LoadResult:
            return open_loop(deployment.port, request, rate=rate, seconds=seconds, connections=CONNECTIONS)

        show("before", steady(15))
        for update in range(1, options.updates + 1):
            image = options.new if update % 2 else options.old
            process = deployment.rollout(image)
            show(f"update {update}", during(process, deployment.port, request, rate, lambda body: expected in body))
            _output(process)
            tags = deployment.tags()
            assert len(tags) == 1, tags
        show("after", steady(15))


def show(name: str, load: LoadResult) -> None:
    print(
        f"| {name} | {load.sent:,} | {load.failed} | {load.wrong} | {load.percentile(0.5) * 1000:.0f} "
        f"| {load.percentile(0.99) * 1000:.0f} | {load.seconds:.0f} |",
        flush=True,
    )
    if failures := {status: count for status, count in sorted(load.statuses.items()) if status != 200}:
        reasons = {0: "connections failed", -1: "requests were not sent: no free connection"}
        counts = [f"{count} {reasons.get(status, status)}" for status, count in failures.items()]
        print(", ".join(counts), file=sys.stderr)


if __name__ == "__main__":
    main()
