"""Throughput and latency of `bentoml serve` and of other servers with the same model; prints one table.

    python benchmarks/serve.py [--model TAG] [--image FILE] [--runs 3] [--requests 3000] [--only trainer,litserve,...]

One server runs at a time and answers a fixed number of requests for one image over loopback, at 1, 8, 32 and 128
connections; figures are medians of the runs. The load generator shares the machine.
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import signal
import socket
import statistics
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil
from hardware import hardware
from load import LoadResult, closed_loop, request_bytes

from trainer import artifact
from trainer.artifact import store
from trainer.data.sources.digits import DigitsSource
from trainer.images.decode import decode
from trainer.images.formats import format_of

PROJECT = Path(__file__).parents[1]
SERVERS = PROJECT / "benchmarks" / "servers"
BIN = Path(sys.executable).parent
CONNECTIONS = (1, 8, 32, 128)
UVICORN = [str(BIN / "uvicorn"), "--host", "127.0.0.1", "--no-access-log", "--log-level", "warning", "--port", "{port}"]
BENTOML = [str(BIN / "bentoml"), "serve", "--host", "127.0.0.1", "--port", "{port}"]
COMMANDS = {
    "trainer": [*BENTOML, "--arg", "model={model}"],
    "trainer_v2_images": [*BENTOML, "--arg", "model={model}"],  # the Open Inference Protocol with binary tensors
    "trainer_v2_encoded": [*BENTOML, "--arg", "model={model}"],
    "trainer_workers=cores": [*BENTOML, "--arg", "model={model}", "--arg", f"workers={os.cpu_count()}"],
    "ceiling": [*UVICORN, "ceiling:app"],
    "bentoml_dispatcher": [*UVICORN, "bentoml_dispatcher:app"],
    "litserve": [sys.executable, "litserve_batching.py", "{port}"],
    "stock_bentoml": [*BENTOML, "stock_bentoml:Stock"],
    "fastapi_tensorflow": [*UVICORN, "fastapi_tensorflow:app"],
}
READY_TIMEOUT_S = 120
POLL_S = 0.05


@dataclass
class Server:
    port: int
    process: subprocess.Popen[bytes]
    seconds_to_ready: float

    def largest_worker_mb(self) -> float:
        """Resident memory of the largest process in megabytes."""
        parent = psutil.Process(self.process.pid)
        return max(process.memory_info().rss for process in [parent, *parent.children(recursive=True)]) / 1e6


@contextmanager
def serving(name: str, model: store.StoredModel) -> Iterator[Server]:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    command = [part.format(port=port, model=model.tag) for part in COMMANDS[name]]
    folder = PROJECT if name.startswith("trainer") else SERVERS
    start = time.perf_counter()
    process = subprocess.Popen(
        command,
        cwd=folder,
        env=os.environ | {"ARTIFACT": str(model.path), "PYTHONPATH": str(folder), "BENTOML_DO_NOT_TRACK": "True"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        while not is_ready(port):
            if process.poll() is not None or time.perf_counter() - start > READY_TIMEOUT_S:
                raise SystemExit(f"{name} does not start: {' '.join(command)}")
            time.sleep(POLL_S)
        yield Server(port, process, time.perf_counter() - start)
    finally:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(20)
        # Some servers leave children behind; this process group holds nothing else.
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def is_ready(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/readyz", timeout=2, trust_env=False).is_success
    except httpx.HTTPError:
        return False


def make_request(name: str, image: bytes, model: store.StoredModel) -> bytes:
    if name.startswith("trainer_v2"):
        return make_v2_request(name.removeprefix("trainer_v2_"), image, model)
    if name == "litserve":
        return request_bytes(
            "/predict", json.dumps({"image": base64.b64encode(image).decode()}).encode(), "application/json"
        )
    if name != "stock_bentoml":
        return request_bytes("/predict", image, "application/octet-stream")
    kind = format_of(image).lower().encode()
    head = b'--frame\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n'
    head += b"Content-Type: image/" + kind + b"\r\n\r\n"
    return request_bytes("/predict", head + image + b"\r\n--frame--\r\n", "multipart/form-data; boundary=frame")


def make_v2_request(tensor: str, image: bytes, model: store.StoredModel) -> bytes:
    """As Triton's client makes it: the tensor and all outputs in binary."""
    if tensor == "images":
        pixels = decode(image, artifact.load(model.path).pixels)
        datatype, shape, data = "UINT8", [1, *pixels.shape], pixels.tobytes()
    else:
        datatype, shape, data = "BYTES", [1], struct.pack("<I", len(image)) + image
    inputs = [{"name": tensor, "datatype": datatype, "shape": shape, "parameters": {"binary_data_size": len(data)}}]
    head = json.dumps({"inputs": inputs, "parameters": {"binary_data_output": True}}).encode()
    path = f"/v2/models/{model.tag.partition(':')[0]}/infer"
    headers = {"Inference-Header-Content-Length": str(len(head))}
    return request_bytes(path, head + data, "application/octet-stream", headers)


def compare(names: list[str], model: store.StoredModel, image: bytes, runs: int, requests: int) -> None:
    loads: dict[tuple[str, int], list[LoadResult]] = {}
    ready: dict[str, list[float]] = {name: [] for name in names}
    memory: dict[str, list[float]] = {name: [] for name in names}
    for run in range(runs):
        for name in names:
            with serving(name, model) as server:
                request = make_request(name, image, model)
                closed_loop(server.port, request, connections=8, requests=200)
                for connections in CONNECTIONS:
                    # One connection is slow, and its latency hardly varies: fewer requests are enough.
                    count = requests // 4 if connections == 1 else requests
                    load = closed_loop(
                        server.port,
                        request,
                        connections=connections,
                        requests=count,
                        is_correct=lambda body: b'"probabilit' in body,
                    )
                    loads.setdefault((name, connections), []).append(load)
                    print(f"run {run + 1}, {name}, {connections}: {load.rate:.0f}/s", file=sys.stderr, flush=True)
                ready[name].append(server.seconds_to_ready)
                memory[name].append(server.largest_worker_mb())
    print(
        "| server | connections | answers/s | p50 ms | p99 ms | errors | MB | ready s |",
        "|---|---|---|---|---|---|---|---|",
        sep="\n",
    )
    for (name, connections), results in loads.items():
        figures = [
            statistics.median(load.rate for load in results),
            statistics.median(1000 * load.percentile(0.5) for load in results),
            statistics.median(1000 * load.percentile(0.99) for load in results),
        ]
        rest = [sum(load.errors for load in results), statistics.median(memory[name])]
        cells = [f"{figures[0]:.0f}", f"{figures[1]:.1f}", f"{figures[2]:.1f}", f"{rest[0]}", f"{rest[1]:.0f}"]
        print(f"| {name} | {connections} | {' | '.join(cells)} | {statistics.median(ready[name]):.1f} |", flush=True)


def first_requests(model: store.StoredModel, image: bytes, starts: int) -> None:
    """Latency of the first request after a start, compared with later ones; each has a new connection.

    The first request arrives up to POLL_S after the server is ready. After a pause an idle processor may take several
    times as long for any request: so later requests are measured both after such a pause and back to back.
    """
    first, paused, steady = [], [], []
    request = make_request("trainer", image, model)

    def latency(port: int) -> float:
        return closed_loop(port, request, connections=1, requests=1).latencies[0]

    for _ in range(starts):
        with serving("trainer", model) as server:
            first.append(latency(server.port))
            steady.append(statistics.median(latency(server.port) for _ in range(50)))
            for _ in range(10):
                time.sleep(POLL_S / 2)
                is_ready(server.port)
                paused.append(latency(server.port))
    medians = [1000 * statistics.median(latencies) for latencies in (first, paused, steady)]
    print(
        f"first request {medians[0]:.1f} ms; later ones after a pause {medians[1]:.1f} ms (ratio "
        f"{medians[0] / medians[1]:.2f}), without {medians[2]:.1f} ms (ratio {medians[0] / medians[2]:.2f}), n={starts}"
    )


def one_digit() -> bytes:
    data = next(DigitsSource().examples()).data
    assert isinstance(data, bytes)  # not a path
    return data


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="tag in the model store (default: the newest)")
    parser.add_argument("--image", type=Path, help="default: one of the built-in digits, 8x8")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--requests", type=int, default=3000)
    parser.add_argument("--only", default="", help=f"of {', '.join(COMMANDS)}")
    parser.add_argument("--starts", type=int, help="instead: latency of the first request, over this many starts")
    options = parser.parse_args()
    model = store.find(options.model)
    image = options.image.read_bytes() if options.image else one_digit()
    print(f"{hardware()}, {model.tag}", flush=True)
    if options.starts:
        first_requests(model, image, options.starts)
    else:
        names = [name for name in COMMANDS if not options.only or name in options.only.split(",")]
        compare(names, model, image, options.runs, options.requests)


if __name__ == "__main__":
    main()
