"""Bare uvicorn and Starlette with the same engine, decoder and runner: the upper limit of what a server can reach."""

import contextlib
import os
from collections.abc import AsyncIterator
from pathlib import Path

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse
from starlette.routing import Route

from trainer import artifact
from trainer.artifact.engine import load_engine
from trainer.artifact.prediction import prediction
from trainer.images.decode import decode
from trainer.serving.batching import BatchRunner

loaded = artifact.load(Path(os.environ["ARTIFACT"]))
pixels = loaded.pixels
runner = BatchRunner(load_engine(loaded), (pixels.height, pixels.width, pixels.channels), queue_length=256)


@contextlib.asynccontextmanager
async def warm(_: Starlette) -> AsyncIterator[None]:
    runner.warm_up(max_batch_s=1.0)
    yield


async def predict(request: Request) -> JSONResponse:
    image = decode(await request.body(), pixels)
    return JSONResponse(prediction(await runner.predict(image), loaded.class_names, loaded.threshold))


async def readyz(_: Request) -> PlainTextResponse:
    return PlainTextResponse("ready")


app = Starlette(routes=[Route("/predict", predict, methods=["POST"]), Route("/readyz", readyz)], lifespan=warm)
