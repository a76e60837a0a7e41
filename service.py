"""The BentoML service: an image in, a label with its probability out. `bentoml serve` starts it."""

from __future__ import annotations

import logging
import os
from typing import Any, cast

import numpy as np

# Read once, when BentoML is imported: nothing is sent to its makers unless someone asks for it.
os.environ.setdefault("BENTOML_DO_NOT_TRACK", "True")

import bentoml
from pydantic import BaseModel, ConfigDict
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from trainer import store
from trainer.config import InputError
from trainer.serving import artifact
from trainer.serving.engine import load_engine
from trainer.serving.http import RawBody, error_response
from trainer.serving.pixels import ImageError, decode
from trainer.serving.prediction import prediction

log = logging.getLogger("bentoml.trainer")  # below BentoML's own logger, which is set up when it serves

# Set by the supervisor for its workers: they all serve one version, also when a newer one is published meanwhile.
SERVED_MODEL = "TRAINER_SERVED_MODEL"


class Settings(BaseModel):
    """What `bentoml serve --arg NAME=VALUE` takes, and TRAINER_NAME in the environment."""

    model_config = ConfigDict(extra="forbid")

    model: str | None = os.environ.get("TRAINER_MODEL") or None  # NAME or NAME:VERSION; None: the newest


class Score(BaseModel):
    label: str
    index: int
    probability: float


class Prediction(Score):
    top: list[Score]  # up to five, the most probable first
    model: str  # NAME:VERSION


settings = bentoml.use_arguments(Settings)


async def model_view(request: Request) -> JSONResponse:
    """GET /model: what is served."""
    return JSONResponse(bentoml.get_current_service().describe())


@bentoml.service(
    name="classifier",
    workers=1,
    logging={"access": {"enabled": False}},
    tracing={"excluded_urls": [".*"]},  # OpenTelemetry's spans would cost more than the network
)
@bentoml.asgi_app(Starlette(routes=[Route("/model", model_view)]))
class Classifier:
    """Classifies images with a model that `trainer fit` made."""

    @bentoml.on_deployment
    @staticmethod
    def choose_model() -> None:
        """Runs once, before the workers: ends `bentoml serve` where there is nothing sound to serve."""
        try:
            stored = store.find(settings.model)
            artifact.load(stored.path)
        except (InputError, artifact.ArtifactError) as error:
            log.error("%s", error)
            raise SystemExit(2) from error
        os.environ[SERVED_MODEL] = stored.tag

    def __init__(self) -> None:
        stored = store.find(os.environ.get(SERVED_MODEL, settings.model))
        self.tag = stored.tag
        self.artifact = artifact.load(stored.path)
        self.engine = load_engine(self.artifact)
        pixels = self.artifact.pixels
        self.engine.predict(np.zeros((1, pixels.height, pixels.width, pixels.channels), np.uint8))
        log.info("serving %s", self.tag)

    @bentoml.api(output_spec=Prediction)
    def predict(self, image: bytes, /) -> Prediction | JSONResponse:
        """Classify one image: the body is its bytes (JPEG, PNG, WebP, BMP or GIF), whatever the Content-Type."""
        try:
            pixels = decode(image, self.artifact.pixels)
        except ImageError as error:
            return error_response(error.code, str(error))
        try:
            answer = prediction(self.engine.predict(pixels[None])[0], self.artifact.labels)
        except FloatingPointError as error:
            log.error("%s", error)
            return error_response("internal", "the model gave no answer")
        return Prediction(**answer, model=self.tag)

    def describe(self) -> dict[str, object]:
        """The answer of GET /model."""
        pixels = self.artifact.pixels
        return {
            "model": self.tag,
            "labels": list(self.artifact.labels),
            "input": {
                "height": pixels.height,
                "width": pixels.width,
                "channels": pixels.channels,
                "normalize": pixels.normalize,
            },
            "metrics": self.artifact.metrics,
        }


# A class decorator's result has the class's type for the type checker; it is a bentoml.Service.
cast(Any, Classifier).add_asgi_middleware(RawBody, paths=("/predict",))
