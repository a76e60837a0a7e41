"""The BentoML service: an image in, a label with its probability out. `bentoml serve` starts it.

`trainer.serving.endpoints` answers over HTTP before BentoML's own code does. The methods with `@bentoml.api` declare
the endpoints to BentoML's client, and serve calls from Python.
"""

from __future__ import annotations

import asyncio
import atexit
import functools
import gc
import logging
import os
import shutil
import signal
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Annotated, Any, cast

# BentoML reads this when it is imported: no telemetry unless a user wants it.
os.environ.setdefault("BENTOML_DO_NOT_TRACK", "True")

import bentoml
from bentoml import Tag
from bentoml.exceptions import InvalidArgument
from bentoml.models import BentoModel
from bentoml.validators import ContentType
from starlette.types import ASGIApp

from trainer import artifact
from trainer.artifact import store
from trainer.artifact.engine import check_engine
from trainer.errors import ArtifactError, InputError
from trainer.machine import raise_open_file_limit
from trainer.serving.endpoints import ENGINE_ROUTES, Endpoints
from trainer.serving.http_protocol import HttpProtocol
from trainer.serving.image_labels import image_labels
from trainer.serving.inference import Inference
from trainer.serving.load_shedding import LoadShedder
from trainer.serving.loaded_model import prepare_model
from trainer.serving.log import configure_logging
from trainer.serving.memory import MemoryBudget, request_memory, return_freed_blocks
from trainer.serving.metrics import Metrics
from trainer.serving.middleware import ApiMiddleware, Backend, OutermostMiddleware, allow_origins
from trainer.serving.request import Request
from trainer.serving.schemas import Prediction, Predictions
from trainer.serving.settings import read_settings
from trainer.serving.supervisor import log_all_addresses, report_missing_model, stop_if_model_missing
from trainer.serving.tokens import Tokens, read_required_tokens
from trainer.serving.tracing import TraceMiddleware, Tracing, check_tracing, traces_wanted
from trainer.serving.watcher import Watcher

log = logging.getLogger("bentoml.trainer")  # below BentoML's own logger, which is set up when it serves

# Set by the supervisor for its workers: they serve one version, also when a newer one is published meanwhile, add their
# metrics up in one folder, and read the same tokens.
SERVED_MODEL = "TRAINER_SERVED_MODEL"
METRICS_DIR = "TRAINER_METRICS_DIR"
TOKEN_FILE = "TRAINER_TOKEN_FILE_IN_USE"  # its absolute path: the workers' working directory may differ


try:
    settings = read_settings(vars(bentoml.use_arguments()), os.environ)
except ValueError as error:
    raise InvalidArgument(str(error)) from None
configure_logging(as_json=settings.log_json)


def chosen_model() -> store.StoredModel:
    """The model to serve, or to pack by `bentoml build`: a Bento's own, else the one in the settings.

    Logs the reason and exits where there is none, or where it is damaged.
    """
    bento = cast(bentoml.Service[Any], Classifier).bento
    try:
        stored = store.find(str(bento.info.all_models[0].tag) if bento else settings.model)
        # Here, because BentoML restarts a failing worker for ever.
        check_engine(artifact.load(stored.path), settings.engine)
    except (InputError, ArtifactError) as error:
        log.error("%s", error)
        raise SystemExit(2) from error
    return stored


def served_model() -> tuple[store.StoredModel, artifact.Artifact]:
    """The version that was chosen when the server was started; with `watch_s`, the promoted one if that is gone."""
    tag = os.environ.get(SERVED_MODEL, settings.model)
    try:
        stored = store.find(tag)
    except InputError:
        if not (tag and settings.watch_s):
            raise
        stored = store.find(tag.partition(":")[0])
    return stored, artifact.load(stored.path)


class ChosenModel(BentoModel):
    """`chosen_model()` as a model of BentoML's, found when its tag is read: importing needs no model."""

    def __init__(self) -> None:
        pass

    @property
    def tag(self) -> Tag:
        tag = chosen_model().tag
        log.info("the model of this service: %s", tag)  # the only line of `bentoml build` that names it
        return Tag.from_str(tag)


@functools.cache
def tracing() -> Tracing | None:
    """This worker's traces; None where nobody wants them."""
    return Tracing() if traces_wanted() else None


@bentoml.service(
    name="classifier",
    workers=settings.workers,
    envs=image_labels(settings.model),
    logging={"access": {"enabled": False}},
    # `trainer.serving.metrics` in their place: BentoML's have a series for each path that a client invents.
    metrics={"enabled": False},
    tracing={"excluded_urls": [".*"]},  # `trainer.serving.tracing` in its place: one span a request, if at all
)
class Classifier:
    """Classifies images with a model that `trainer fit` made."""

    model = ChosenModel()

    @bentoml.on_deployment
    @staticmethod
    def choose_model() -> None:
        """End `bentoml serve` if there is no model to serve; runs once, before the workers start."""
        if settings.watch_s and cast(bentoml.Service[Any], Classifier).bento:
            log.error("watch_s: a Bento holds one version of its model; a newer one comes with a newer Bento")
            raise SystemExit(2)
        if settings.token_file:
            try:
                read_required_tokens(settings.token_file)
            except InputError as error:
                log.error("token_file: %s", error)
                raise SystemExit(2) from error
            os.environ[TOKEN_FILE] = str(settings.token_file.absolute())
        try:
            check_tracing()
        except InputError as error:
            log.error("%s", error)
            raise SystemExit(2) from error
        os.environ[SERVED_MODEL] = chosen_model().tag
        stop_if_model_missing(served_model)
        log_all_addresses()
        if settings.drain_file:
            # Left over from the previous process, which a failed liveness probe has ended: this one is to be ready.
            settings.drain_file.unlink(missing_ok=True)
        if settings.workers > 1:
            os.environ[METRICS_DIR] = tempfile.mkdtemp(prefix="trainer-metrics-")
            atexit.register(shutil.rmtree, os.environ[METRICS_DIR], ignore_errors=True)

    def __init__(self) -> None:
        self.draining = False
        try:
            stored, packed = served_model()
        except (InputError, ArtifactError):  # deleted or damaged since the server was started
            report_missing_model()
        metrics = Metrics(stored.tag, os.environ.get(METRICS_DIR))
        loaded = prepare_model(stored.tag, packed, settings, metrics.on_batch)
        raise_open_file_limit()  # each connection is an open file
        return_freed_blocks()
        memory = MemoryBudget(request_memory(settings.workers))
        HttpProtocol.memory = memory
        log.info("memory: requests in flight get at most %d MiB; more of them wait", memory.size >> 20)
        self.inference = Inference(loaded, settings, metrics, memory)
        if traces := tracing():
            self.inference.on_stage = traces.add_event
        self.watcher = Watcher(self.inference, packed.path, settings, metrics, memory) if settings.watch_s else None
        self.endpoints = Endpoints(
            self.inference, metrics, memory, with_token=settings.token_file is not None, is_ready=self.is_ready
        )
        tokens = Tokens(Path(os.environ.get(TOKEN_FILE, settings.token_file))) if settings.token_file else None
        self.backend = Backend(self.endpoints.routes, metrics.on_request, memory, tokens)
        HttpProtocol.shedder = LoadShedder(self.inference.overloaded, ENGINE_ROUTES, tokens, metrics.on_request)

    @bentoml.on_startup
    async def warm_up(self) -> None:
        """Warm up before /readyz says 200, so that the first request is as fast as the others."""
        await self.endpoints.warm_up()
        # All of it stays: the garbage collector need not traverse it again, which takes 100 ms and more.
        gc.collect()
        gc.freeze()
        self.drain_before_stop()
        if self.watcher:
            self.watcher.start()

    @bentoml.on_shutdown
    async def stop(self) -> None:
        """End the thread that watches the store, and send the last spans."""
        if self.watcher:
            await self.watcher.stop()
        if traces := tracing():
            await traces.stop()

    def drain_before_stop(self) -> None:
        """On SIGTERM, report not ready at once, and stop `drain_delay_s` later.

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

    @bentoml.api
    async def predict(self, image: bytes, /) -> Prediction:
        """Classify one image: the body is its bytes (JPEG, PNG, WebP, HEIC, AVIF, BMP or GIF) of any Content-Type."""
        return await self.inference.predict(image)

    @bentoml.api
    async def predict_batch(self, images: list[Path]) -> Predictions:
        """Classify 1 to 256 images; a faulty one has an error in its place."""
        return await self.inference.predict_batch([file.read_bytes() for file in images])

    @bentoml.api
    async def preview(self, image: bytes, /) -> Annotated[bytes, ContentType("image/png")]:
        """The image as the model sees it."""
        return await self.inference.preview(image)

    @bentoml.api
    async def explain(self, image: bytes, /) -> Annotated[bytes, ContentType("image/png")]:
        """The image as the model sees it, in gray under the saliency map of the answer."""
        return await self.inference.explain(image)

    def is_ready(self) -> bool:
        """Whether requests may be sent here: neither stopping nor stalled."""
        draining = self.draining or (settings.drain_file is not None and settings.drain_file.exists())
        return not draining and not self.inference.stalled

    async def __is_ready__(self) -> bool:
        return self.is_ready()


def backend() -> Backend:
    """The service's part of `ApiMiddleware`, once the service exists."""
    return cast(Classifier, bentoml.get_current_service()).backend


def add_api(app: ASGIApp) -> ASGIApp:
    """Put the contract's endpoints, traces and CORS around BentoML's application."""
    api: ASGIApp = ApiMiddleware(app, backend)
    if traces := tracing():
        api = TraceMiddleware(api, traces, lambda: backend().routes)
    return allow_origins(api, settings.cors_origins) if settings.cors_origins else api


HttpProtocol.install()
# To the type checker the decorated class is still a class; it is a bentoml.Service.
cast(Any, Classifier).add_asgi_middleware(OutermostMiddleware, wrap=add_api)
