"""Rolling updates under load, on this machine's Docker Swarm; prints one table.

    python benchmarks/rollout.py OLD_IMAGE NEW_IMAGE [--updates 5] [--load 0.5]

Says what a start costs. Then deploys `deploy/stack.yaml` under a name and a port of its own with OLD_IMAGE, measures
what it can take, and keeps it at half of that while `make rollout` replaces the replicas by those of NEW_IMAGE, back by
those of OLD_IMAGE, and so on. The load generator shares the machine. `bentoml containerize` makes the images.
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
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from hardware import hardware
from load import Load, closed_loop, open_loop, request_bytes
from serve import one_digit

PROJECT = Path(__file__).parents[1]
NAME = "trainer-rollout"
SERVICE = f"{NAME}_classifier"
READY_TIMEOUT_S = 120
CONNECTIONS = 256


@dataclass(frozen=True)
class Deployment:
    """A running stack."""

    port: int

    def rollout(self, image: str) -> subprocess.Popen[str]:
        """`make rollout`, which ends when the last replica runs, or when all are back where it failed."""
        return _make("rollout", f"IMAGE={image}")

    def rollback(self) -> subprocess.Popen[str]:
        """`make rollback`, likewise."""
        return _make("rollback")

    def tags(self, asked: int = 40) -> set[str]:
        """The models that answer."""
        return {json.loads(self.get("/model"))["model"] for _ in range(asked)}

    def get(self, path: str) -> bytes:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=5) as reply:
            return bytes(reply.read())


@contextmanager
def deployed(image: str) -> Iterator[Deployment]:
    """`make deploy`, ready; removed at the end."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        deployment = Deployment(listener.getsockname()[1])
    try:
        _done(_make("deploy", f"IMAGE={image}", f"PORT={deployment.port}"))
        wait_for(lambda: len(containers()) == 2 and deployment.get("/readyz") is not None)
        yield deployment
    finally:
        _done(_docker("stack", "rm", NAME))
        # Its network goes last, and has to be gone before the next deployment can have it.
        wait_for(lambda: not _done(_docker("network", "ls", "--quiet", "--filter", f"name={NAME}")))


def containers() -> list[str]:
    """The ids of the healthy replicas."""
    label = f"label=com.docker.swarm.service.name={SERVICE}"
    return _done(_docker("ps", "--quiet", "--filter", label, "--filter", "health=healthy")).split()


def wait_for(condition: Callable[[], bool]) -> float:
    """Seconds until it holds; an answer that fails is none."""
    start = time.monotonic()
    while time.monotonic() - start < READY_TIMEOUT_S:
        try:
            if condition():
                return time.monotonic() - start
        except (urllib.error.URLError, OSError):
            pass
        time.sleep(0.2)
    raise SystemExit(f"{NAME}: not as it should be after {READY_TIMEOUT_S} s: docker service ps {SERVICE}")


def capacity(port: int, request: bytes) -> float:
    """Good answers for each second, with as many connections as there are in what follows."""
    return closed_loop(port, request, connections=CONNECTIONS, seconds=5).rate


def during(
    process: subprocess.Popen[str], port: int, request: bytes, rate: float, good: Callable[[bytes], bool]
) -> Load:
    """A steady load until the process ends."""
    return open_loop(
        port,
        request,
        rate=rate,
        seconds=1,
        connections=CONNECTIONS,
        go_on=lambda: process.poll() is None,
        is_right=good,
    )


def start_cost(image: str) -> tuple[float, float]:
    """Seconds from `docker run` to ready, and the CPU seconds of the container until then."""
    name = _done(_docker("run", "--detach", "--cpus=1", "--publish=127.0.0.1::3000", image)).strip()
    try:
        port = int(_done(_docker("port", name, "3000")).strip().rpartition(":")[2])
        seconds = wait_for(lambda: Deployment(port).get("/readyz") is not None)
        usage = _done(
            _docker(
                "exec",
                name,
                "sh",
                "-c",
                "cat /sys/fs/cgroup/cpu.stat /sys/fs/cgroup/cpuacct/cpuacct.usage 2>/dev/null; true",
            )
        )
        words = usage.split()
        if "usage_usec" in words:
            return seconds, int(words[words.index("usage_usec") + 1]) / 1e6
        return seconds, int(words[-1]) / 1e9  # version 1 of cgroups
    finally:
        _done(_docker("rm", "--force", name))


def _make(*arguments: str) -> subprocess.Popen[str]:
    command = ["make", "--silent", *arguments, f"STACK={NAME}"]
    return subprocess.Popen(
        command, cwd=PROJECT, env=os.environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def _docker(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(["docker", *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def _done(process: subprocess.Popen[str]) -> str:
    output, _ = process.communicate()
    if process.returncode:
        raise SystemExit(f"{process.args!r}: exit {process.returncode}: {output}")
    return output


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("old")
    parser.add_argument("new")
    parser.add_argument("--updates", type=int, default=5)
    parser.add_argument("--load", type=float, default=0.5, help="of what it can take")
    options = parser.parse_args()

    print(hardware(), flush=True)
    request = request_bytes("/predict", one_digit(), "image/png")
    starts = [start_cost(options.old) for _ in range(3)]
    ready, cpu = (statistics.median(values) for values in zip(*starts, strict=True))
    print(f"a start takes {cpu:.1f} CPU seconds and {ready:.1f} s until it is ready, alone (medians of 3)", flush=True)
    with deployed(options.old) as deployment:
        right = b'"label":' + json.dumps(json.loads(_answer(deployment.port))["label"]).encode()
        most = capacity(deployment.port, request)
        rate = options.load * most
        print(f"two replicas take {most:.0f} requests/s; the load from now on is {rate:.0f}/s\n")
        print("| | requests | failed | wrong | p50 ms | p99 ms | s |\n|---|---|---|---|---|---|---|", flush=True)

        def steady(seconds: float) -> Load:
            return open_loop(deployment.port, request, rate=rate, seconds=seconds, connections=CONNECTIONS)

        show("before", steady(15))
        for update in range(1, options.updates + 1):
            image = options.new if update % 2 else options.old
            process = deployment.rollout(image)
            show(f"update {update}", during(process, deployment.port, request, rate, lambda body: right in body))
            _done(process)
            tags = deployment.tags()
            assert len(tags) == 1, tags
        show("after", steady(15))


def _answer(port: int) -> bytes:
    request = urllib.request.Request(f"http://127.0.0.1:{port}/predict", data=one_digit())
    with urllib.request.urlopen(request, timeout=5) as reply:
        return bytes(reply.read())


def show(name: str, load: Load) -> None:
    print(
        f"| {name} | {load.sent:,} | {load.failed} | {load.wrong} | {load.percentile(0.5) * 1000:.0f} "
        f"| {load.percentile(0.99) * 1000:.0f} | {load.seconds:.0f} |",
        flush=True,
    )
    if others := {status: count for status, count in sorted(load.statuses.items()) if status != 200}:
        words = {0: "connections failed", -1: "requests were not sent: no free connection"}
        print(", ".join(f"{count} {words.get(status, status)}" for status, count in others.items()), file=sys.stderr)


if __name__ == "__main__":
    main()
