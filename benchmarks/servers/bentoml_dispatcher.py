"""`ceiling.py` with BentoML's dispatcher instead of our runner: shows how much of the difference is the batching."""

import asyncio
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from bentoml._internal.marshal.dispatcher import CorkDispatcher
from numpy.typing import NDArray
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse
from starlette.routing import Route

from trainer import artifact
from trainer.artifact.engine import PROBABILITIES, load_engine
from trainer.artifact.prediction import prediction
from trainer.images.decode import decode

loaded = artifact.load(Path(os.environ["ARTIFACT"]))
engine = load_engine(loaded)
thread = ThreadPoolExecutor(1)


def full() -> None:
    raise RuntimeError("overloaded")


async def run(images: Sequence[NDArray[np.uint8]]) -> Sequence[NDArray[np.float32]]:
    batch = np.stack(images)
    outputs = await asyncio.get_running_loop().run_in_executor(thread, engine.predict, batch)
    return list(outputs[PROBABILITIES])


dispatcher = CorkDispatcher(1000, 64, fallback=full, get_batch_size=lambda image: 1, batch_dim=(0, 0))
batched = dispatcher(run)


async def predict(request: Request) -> JSONResponse:
    image = decode(await request.body(), loaded.pixels)
    return JSONResponse(prediction({PROBABILITIES: await batched(image)}, loaded.class_names, loaded.threshold))


async def readyz(_: Request) -> PlainTextResponse:
    return PlainTextResponse("ready")


app = Starlette(routes=[Route("/predict", predict, methods=["POST"]), Route("/readyz", readyz)])
