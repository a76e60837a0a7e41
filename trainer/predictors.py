"""Predictions of a stored model or of a running server for the images of a data set, as a client would get them."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import count, islice
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from trainer import artifact
from trainer.artifact import store
from trainer.artifact.engine import OOD_SCORE, PROBABILITIES, load_engine
from trainer.artifact.prediction import DECIMALS, is_known
from trainer.data import Split, load_undivided
from trainer.data.batches import predict_batches
from trainer.data.progress import track
from trainer.data.sources.base import Source
from trainer.errors import InputError, ResponseError, RunError
from trainer.remote import Server
from trainer.reporting.predictions import Predictions

log = logging.getLogger("trainer")

CONNECTIONS = 4  # to a server: enough to keep it busy, and far below the length of its queue
CHUNK_IMAGES = 64  # sent before more are read: the whole data set need not fit into memory
REFUSED = ""  # in place of a class name
IMAGE_ERRORS = (413, 415, 422)  # statuses of HTTP for an image that the server does not take
BUSY = (503, 504)  # statuses after which a request is repeated
ATTEMPTS = 20
PAUSE_S = 0.5  # before the next attempt


class Predictor(Protocol):
    """A model that can be asked."""

    tag: str
    class_names: tuple[str, ...]

    def predict(self, source: Source, images: Split) -> Predictions:
        """Predictions for `images`, some of those of `source`; the class name is REFUSED where one is not taken."""


class LocalModel:
    """A model of the store, asked in this process through the file that is served. Raises ArtifactError."""

    def __init__(self, stored: store.StoredModel) -> None:
        self.tag = stored.tag
        self.loaded = artifact.load(stored.path)
        self.class_names = self.loaded.class_names
        self.engine = load_engine(self.loaded)
        self._decoded: Split | None = None  # every image of the source

    def decoded(self, source: Source, images: Split) -> Split:
        """The same images with the pixels that this model takes. Raises RunError where their files have changed."""
        if images.cache.pixels == self.loaded.pixels:
            return images
        if self._decoded is None:
            self._decoded = load_undivided(source, self.loaded.pixels)
            if self._decoded.cache.names != images.cache.names:
                raise RunError(f"--dataset {source.spec}: its files change while they are read; run it again")
        return Split(self._decoded.cache, images.indices)

    def predict(self, source: Source, images: Split) -> Predictions:
        """As the protocol says; no image is refused."""
        outputs = predict_batches(self.engine.predict, self.decoded(source, images), f"asking {self.tag}")
        probabilities = outputs[PROBABILITIES]
        rounded = probabilities.max(1).astype(np.float64).round(DECIMALS)
        return Predictions(
            np.array(self.class_names)[probabilities.argmax(1)],
            rounded,
            is_known(rounded, outputs.get(OOD_SCORE), self.loaded.threshold),
        )


class ServedModel:
    """The model that answers at a running server, asked with the encoded images.

    Raises InputError where no server of `trainer` answers, with a reason that has its address.
    """

    def __init__(self, server: Server) -> None:
        described = server.model()
        try:
            self.tag: str = described["model"]
            self.class_names: tuple[str, ...] = tuple(described["labels"])
        except (KeyError, TypeError):
            raise InputError(f"--url: {server.url} is no server of trainer: /model does not name one") from None
        self._server = server

    def predict(self, source: Source, images: Split) -> Predictions:
        """As the protocol says. Raises InputError where the server stops answering, or another model takes over."""
        names = [images.name(position) for position in range(len(images))]
        wanted = frozenset(names)
        files = ((example.name, example.data) for example in source.examples() if example.name in wanted)
        found = self._ask_all(files, len(names))
        refused: dict[str, Any] = {"label": REFUSED, "probability": 0.0, "known": False}
        answers = [found.get(name) or refused for name in names]
        return Predictions(
            np.array([answer["label"] for answer in answers]),
            np.array([answer["probability"] for answer in answers]),
            np.array([answer["known"] for answer in answers]),
        )

    def _ask_all(self, files: Iterator[tuple[str, str | bytes]], total: int) -> dict[str, dict[str, Any] | None]:
        """The answer for each named file (a path, or the encoded bytes); None where the server does not take it."""
        found: dict[str, dict[str, Any] | None] = {}
        chunks = iter(lambda: list(islice(files, CHUNK_IMAGES)), [])
        with ThreadPoolExecutor(CONNECTIONS) as pool:
            for chunk in track(chunks, len, total=total, what=f"asking {self._server.url}", bar=None):
                names, contents = zip(*chunk, strict=True)
                found |= zip(names, pool.map(self._ask, contents), strict=True)
        return found

    def _ask(self, content: str | bytes) -> dict[str, Any] | None:
        image = content if isinstance(content, bytes) else Path(content).read_bytes()
        for attempt in count(1):
            try:
                answer = self._server.predict(image)
                break
            except ResponseError as error:
                if error.status in IMAGE_ERRORS:
                    return None
                if error.status not in BUSY or attempt == ATTEMPTS:
                    raise InputError(f"--url: {self._server.url}: {error}") from error
                time.sleep(PAUSE_S)
        if answer["model"] != self.tag:
            raise InputError(f"--url: {self._server.url} answers with {self.tag} and with {answer['model']}")
        return answer
