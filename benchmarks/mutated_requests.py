"""Mutated images sent to a server: in `/predict`, between good ones in `/predict_batch`, and as v2's `encoded`."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import psutil
import uvloop
from load import Connection, connect, request_bytes
from serve import make_v2_request
from swap import Versions, expected_answer

from trainer.artifact import store

STATUSES = (200, 400, 413, 415, 422, 503, 504)  # that an image may get
CONNECTIONS = 4
MAX_ANSWER_S = 30.0  # the machine may be busy
FRAME = b'--frame\r\nContent-Disposition: form-data; name="images"; filename="f"\r\n\r\n%s\r\n'


@dataclass
class Answers:
    """Numbers of requests by path and status, and what went wrong."""

    statuses: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)


def form(images: list[bytes]) -> bytes:
    """A multipart request for `/predict_batch`."""
    body = b"".join(FRAME % image for image in images) + b"--frame--\r\n"
    return request_bytes("/predict_batch", body, "multipart/form-data; boundary=frame")


async def ask_all(
    port: int,
    model: store.StoredModel,
    images: Callable[[int], bytes],
    numbers: Iterator[int],
    good: bytes,
    versions: Versions,
) -> Answers:
    """Send the images of these numbers; `good` is an image of which `versions` know the answers."""
    answers = Answers()

    def is_right(body: bytes) -> bool:
        """Whether the middle one of a batch is the answer to `good`."""
        answer = json.loads(body)
        return versions.is_right({**answer["predictions"][1], "model": answer["model"]})

    async def client() -> None:
        connection: Connection | None = None
        for number in numbers:
            image = images(number)
            if number % 5 == 0:
                path, request = "/predict_batch", form([image, good, images(-number - 1)])
            elif number % 5 == 1:
                path, request = "/v2", make_v2_request("encoded", image, model)
            else:
                path, request = "/predict", request_bytes("/predict", image, "image/jpeg")
            try:
                if connection is None or not connection.is_open:
                    connection = await connect(port)
                response = await asyncio.wait_for(connection.send(request), MAX_ANSWER_S)
                if response is None:
                    raise ConnectionError("the server closed the connection")
                head, body = response
            except (OSError, TimeoutError) as error:
                answers.failures.append(f"image {number} in {path}: {error!r}")
                connection = None
                continue
            status = int(head.split(b" ", 2)[1])
            answers.statuses[f"{path} {status}"] += 1
            if status not in STATUSES or (path == "/predict_batch" and status == 200 and not is_right(body)):
                answers.failures.append(f"image {number} in {path}: {status} {body[:200]!r}")
        if connection:
            connection.close()

    await asyncio.gather(*(client() for _ in range(CONNECTIONS)))
    return answers


def send_all(
    port: int, server: psutil.Process, model: store.StoredModel, images: Callable[[int], bytes], good: bytes, count: int
) -> Answers:
    """As `ask_all`, for the images 0 to `count` - 1; it is also a failure if a process of the server has ended."""
    workers = server.children(recursive=True)
    versions = Versions({model.tag: expected_answer(model, good)})
    answers = uvloop.run(ask_all(port, model, images, iter(range(count)), good, versions))
    answers.failures += [f"{worker} has ended" for worker in workers if not worker.is_running()]
    return answers
