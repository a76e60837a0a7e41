"""The service under hostile input and under more load than it can take. Minutes long."""

from __future__ import annotations

import http.client
import io
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from load import closed_loop, open_loop, request_bytes
from PIL import Image
from server import Server, serving

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

FORMATS = ("PNG", "JPEG", "BMP", "GIF", "WebP")
FUZZED = 20_000
CLIENTS = 8


@pytest.fixture(scope="module")
def server(tiny_artifact: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tiny_artifact, tmp_path_factory.mktemp("served")) as running:
        yield running


def encoded(format: str = "PNG", side: int = 28) -> bytes:
    pixels = np.random.default_rng(3).integers(0, 256, (side, side), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format)
    return buffer.getvalue()


def mutated(image: bytes, random: np.random.Generator) -> bytes:
    """Some bytes changed, and perhaps a stretch cut out, doubled or put elsewhere."""
    data = bytearray(image)
    for _ in range(random.integers(1, 12)):
        data[random.integers(len(data))] = random.integers(256)
    start, end = sorted(random.integers(0, len(data), 2))
    match random.integers(5):
        case 0:
            del data[start:end]
        case 1:
            data[start:start] = data[start:end]
        case 2:
            data = data[:end]
        case _:
            pass
    return bytes(data)


def memory_of(server: Server) -> int:
    return sum(process.memory_info().rss for process in server.workers())


def test_fuzzed_images_do_no_harm(server: Server) -> None:
    images = [encoded(format, side) for format in FORMATS for side in (8, 28, 200)]

    def client(seed: int) -> Counter[int]:
        random, statuses = np.random.default_rng(seed), Counter[int]()
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
        for index in range(FUZZED // CLIENTS // 2):
            connection.request("POST", "/predict", mutated(images[index % len(images)], random))
            response = connection.getresponse()
            response.read()
            statuses[response.status] += 1
        connection.close()
        return statuses

    def all_clients(first_seed: int) -> Counter[int]:
        with ThreadPoolExecutor(CLIENTS) as pool:
            return sum(pool.map(client, range(first_seed, first_seed + CLIENTS)), Counter())

    workers = server.workers()
    statuses = all_clients(0)
    before = memory_of(server)
    statuses += all_clients(CLIENTS)
    assert statuses.total() == FUZZED
    assert set(statuses) <= {200, 400, 413, 415, 422}
    assert min(statuses[200], statuses[422]) > FUZZED // 100  # neither all refused nor all read
    assert server.workers() == workers
    assert memory_of(server) < before + 30e6
    assert "Traceback" not in server.log.read_text()


def test_one_bad_image_changes_no_other_answer(server: Server) -> None:
    good, bad = encoded(), encoded()[:-200]
    wanted = server.predict(good).value
    with ThreadPoolExecutor(32) as pool:
        for round in range(64):  # each place twice
            bodies = [good] * 32
            bodies[round % 32] = bad
            replies = list(pool.map(server.predict, bodies))
            assert replies.pop(round % 32).code == "corrupt_image"
            for reply in replies:
                assert reply.status == 200
                assert reply.value["index"] == wanted["index"]
                assert reply.value["probability"] == pytest.approx(wanted["probability"], abs=2e-6)


@pytest.mark.alone
def test_overload_is_refused_and_leaves_no_trace(server: Server) -> None:
    request = request_bytes("/predict", encoded(), "image/png")
    load = closed_loop(
        server.port, request, connections=512, seconds=10, is_correct=lambda body: b'"probability"' in body
    )
    assert set(load.statuses) <= {200, 503}
    assert load.wrong == 0
    before = memory_of(server)
    load = open_loop(server.port, request, rate=3 * load.rate, seconds=10, connections=1000)
    assert set(load.statuses) <= {200, 503, 504, -1}
    assert memory_of(server) < before + 100e6
    calm = closed_loop(server.port, request, connections=8, requests=200)
    assert calm.statuses == {200: 200}


def test_responses_match_openapi(server: Server) -> None:
    """All checks but that random bytes, which the schema cannot tell from an image, are taken for one.

    With some seeds (1 and 3) Schemathesis invents a field for a form, sends the form without it, and wants it refused.
    """
    done = subprocess.run(
        [
            *(sys.executable, "-m", "schemathesis.cli", "run", f"{server.url}/docs.json"),
            *("--checks=all", "--exclude-checks=positive_data_acceptance", "--max-examples=30", "--seed=2"),
            *("--workers=1", "--generation-database=none", "--no-color"),
        ],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stdout
