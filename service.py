"""The BentoML service: an image in, a label with its probability out. `bentoml serve` starts it.

The endpoints are `trainer.serving.api`, which answers over HTTP before BentoML's own code does. What is declared here
with `@bentoml.api` is for BentoML's client and for calls within Python.
"""

from __future__ import annotations

import asyncio
import atexit
import gc
import logging
import os
import re
import shutil
import signal
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Annotated, Any, cast

# Read once, when BentoML is imported: nothing is sent to its makers unless someone asks for it.
os.environ.setdefault("BENTOML_DO_NOT_TRACK", "True")

import bentoml
from bentoml import Tag
from bentoml.exceptions import InvalidArgument
from bentoml.models import BentoModel
from bentoml.validators import ContentType
from pydantic import BaseModel
from starlette.types import ASGIApp

from trainer import artifact
from trainer.artifact import store
from trainer.artifact.engine import check_engine
from trainer.errors import ArtifactError, InputError
from trainer.serving.api import Api
from trainer.serving.http import Backend, Contract, Outermost, allow_origins
from trainer.serving.log import set_up
from trainer.serving.memory import Memory, left_for_requests
from trainer.serving.metrics import Metrics
from trainer.serving.protocol import Protocol
from trainer.serving.request import Request
from trainer.serving.served import make_served
from trainer.serving.settings import read_settings
from trainer.serving.supervisor import end_without, give_up, tell_all_addresses
from trainer.serving.tokens import Tokens, read_some_tokens

log = logging.getLogger("bentoml.trainer")  # below BentoML's own logger, which is set up when it serves

# Set by the supervisor for its workers. They all serve one version, also when a newer one is published meanwhile,
# add their metrics up in one folder, and know the same tokens.
SERVED_MODEL = "TRAINER_SERVED_MODEL"
METRICS_DIR = "TRAINER_METRICS_DIR"
TOKEN_FILE = "TRAINER_TOKEN_FILE_IN_USE"  # its whole path: theirs may be another working directory


class Score(BaseModel):
    label: str
    index: int
    probability: float


class Prediction(Score):
    top: list[Score]  # up to five, the most probable first
    model: str  # NAME:VERSION


try:
    settings = read_settings(vars(bentoml.use_arguments()), os.environ)
except ValueError as error:
    raise InvalidArgument(str(error)) from None
set_up(as_json=settings.log_json)


def chosen_model() -> store.StoredModel:
    """The sound model that is served, or packed by `bentoml build`: of a Bento its own, else the one that is set.

    Ends the command with the reason where there is none.
    """
    bento = cast(bentoml.Service[Any], Classifier).bento
    try:
        stored = store.find(str(bento.info.all_models[0].tag) if bento else settings.model)
        # Here, because BentoML restarts a worker that fails for ever.
        check_engine(artifact.load(stored.path), settings.engine)
    except (InputError, ArtifactError) as error:
        log.error("%s", error)
        raise SystemExit(2) from error
    return stored


def served_model() -> tuple[store.StoredModel, artifact.Artifact]:
    """The version that was chosen when the server was started."""
    stored = store.find(os.environ.get(SERVED_MODEL, settings.model))
    return stored, artifact.load(stored.path)


class ChosenModel(BentoModel):
    """`chosen_model()` as BentoML's own kind of model, found only when asked for: importing needs no model."""

    def __init__(self) -> None:
        pass

    @property
    def tag(self) -> Tag:
        return Tag.from_str(chosen_model().tag)


def image_labels() -> list[dict[str, str]]:
    """Annotations (OCI) for the image that is built from here; BentoML hands `envs` on to the Dockerfile."""
    try:
        stored = store.find(settings.model)
        packed = artifact.read_spec(stored.path)
    except (InputError, ArtifactError):
        return []  # nothing to build or serve, which these commands will say
    labels = {
        "org.opencontainers.image.title": stored.tag.partition(":")[0],
        "org.opencontainers.image.version": stored.tag,
        "org.opencontainers.image.revision": packed["git_revision"],
        # Without the path: registries show it.
        "trainer.dataset": re.sub(r"^(folder|csv):.*/", r"\1:", packed["dataset"], flags=re.DOTALL),
    } | {f"trainer.{name}": str(value) for name, value in packed["metrics"].items()}
    for name, value in labels.items():
        if value and not value.isprintable():
            log.warning("the image has no label %s: a Dockerfile cannot hold %r", name, value)
    return [{"name": name, "value": value} for name, value in labels.items() if value and value.isprintable()]


@bentoml.service(
    name="classifier",
    workers=settings.workers,
    envs=image_labels(),
    logging={"access": {"enabled": False}},
    # Our own, in `trainer.serving.metrics`: BentoML's have a series for each path that a client invents.
    metrics={"enabled": False},
    tracing={"excluded_urls": [".*"]},  # OpenTelemetry's spans would cost more than the network
)
class Classifier:
    """Classifies images with a model that `trainer fit` made."""

    model = ChosenModel()

    @bentoml.on_deployment
    @staticmethod
    def choose_model() -> None:
        """Runs once, before the workers: ends `bentoml serve` where there is nothing sound to serve."""
        if settings.token_file:
            try:
                read_some_tokens(settings.token_file)
            except InputError as error:
                log.error("token_file: %s", error)
                raise SystemExit(2) from error
            os.environ[TOKEN_FILE] = str(settings.token_file.absolute())
        os.environ[SERVED_MODEL] = chosen_model().tag
        end_without(served_model)
        tell_all_addresses()
        if settings.drain_file:
            # Of the process before this one, which a failed liveness probe has ended: this one is to be ready.
            settings.drain_file.unlink(missing_ok=True)
        if settings.workers > 1:
            os.environ[METRICS_DIR] = tempfile.mkdtemp(prefix="trainer-metrics-")
            atexit.register(shutil.rmtree, os.environ[METRICS_DIR], ignore_errors=True)

    def __init__(self) -> None:
        self.draining = False
        try:
            stored, loaded = served_model()
        except (InputError, ArtifactError):  # deleted or damaged since the server was started
            give_up()
        metrics = Metrics(stored.tag, os.environ.get(METRICS_DIR))
        served = make_served(stored.tag, loaded, settings, metrics.on_batch)
        memory = Memory(left_for_requests(settings.workers))
        log.info("the pictures that are being answered may take %d MiB of memory", memory.size >> 20)
        self.api = Api(served, settings, metrics, memory)
        tokens = Tokens(Path(os.environ.get(TOKEN_FILE, settings.token_file))) if settings.token_file else None
        self.backend = Backend(self.api.routes, metrics.on_request, memory, tokens)

    @bentoml.on_startup
    async def warm_up(self) -> None:
        """Before /readyz says 200: the first request is as fast as any."""
        await self.api.warm_up()
        # What is there now stays: the garbage collector need not look through it again, which takes 100 ms and more.
        gc.collect()
        gc.freeze()
        self.drain_before_stop()

    def drain_before_stop(self) -> None:
        """From now on SIGTERM turns /readyz off at once, and stops the server `drain_delay_s` later.

        BentoML by itself closes its port at once, while a proxy still sends requests.
        """
        stop = cast(Callable[[int, None], None], signal.getsignal(signal.SIGTERM))  # uvicorn's
        loop = asyncio.get_running_loop()

        def end() -> None:
            Request.stop_reading()
            stop(signal.SIGTERM, None)

        def drain(_: int, __: FrameType | None) -> None:
            log.info("stopping in %g s; not ready from now on", settings.drain_delay_s)
            self.draining = True
            loop.call_soon_threadsafe(loop.call_later, settings.drain_delay_s, end)

        signal.signal(signal.SIGTERM, drain)

    @bentoml.api(output_spec=Prediction)
    async def predict(self, image: bytes, /) -> dict[str, Any]:
        """Classify one image: the body is its bytes (JPEG, PNG, WebP, HEIC, AVIF, BMP or GIF) of any Content-Type."""
        return await self.api.predict(image)

    @bentoml.api
    async def predict_batch(self, images: list[Path]) -> dict[str, Any]:
        """Classify 1 to 256 images; one that is at fault has an error in its place."""
        return await self.api.predict_batch([file.read_bytes() for file in images])

    @bentoml.api
    async def preview(self, image: bytes, /) -> Annotated[bytes, ContentType("image/png")]:
        """The picture that the model sees."""
        return await self.api.preview(image)

    @bentoml.api
    async def explain(self, image: bytes, /) -> Annotated[bytes, ContentType("image/png")]:
        """The picture that the model sees, in gray under the heat of what spoke for the answer."""
        return await self.api.explain(image)

    async def __is_ready__(self) -> bool:
        return self.api.ready and not self.draining and not (settings.drain_file and settings.drain_file.exists())


def backend() -> Backend:
    """What `Contract` answers with, once the service exists."""
    return cast(Classifier, bentoml.get_current_service()).backend


def answering(app: ASGIApp) -> ASGIApp:
    """What answers every request: the contract around BentoML's application."""
    contract = Contract(app, backend)
    return allow_origins(contract, settings.cors_origins) if settings.cors_origins else contract


Protocol.install()
# A class decorator's result has the class's type for the type checker; it is a bentoml.Service.
cast(Any, Classifier).add_asgi_middleware(Outermost, wrap=answering)
