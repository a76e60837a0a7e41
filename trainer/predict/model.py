"""A stored model in Python: `load_model("photos").predict("cat.jpg")`. The answers are the server's."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from queue import SimpleQueue

import numpy as np
from numpy.typing import NDArray

from trainer import artifact
from trainer.artifact import Artifact, store
from trainer.artifact.engine import Engine, Outputs, load_engine
from trainer.artifact.prediction import prediction
from trainer.errors import ArtifactError, ImageError, InputError, TrainerError
from trainer.images.decode import decode
from trainer.machine import available_cpus, memory_budget
from trainer.predict.image_input import ImageInput, described, encoded
from trainer.text import printable

# CPU milliseconds an image, at 1, 8 and 32: MNIST's network 1.8, 0.4, 0.4; one for photos in float32 5.3, 5.9, 6.4.
BATCH_SIZE = 8
BATCHES_AHEAD = 2  # that wait for each engine, so that it never does
ENGINE_BYTES = 3  # of memory, for each byte of the network's file: an engine packs the weights for itself


@dataclass(frozen=True)
class Score:
    """A class and its probability."""

    label: str
    index: int  # of the class
    probability: float  # 0 to 1, with six decimals


@dataclass(frozen=True)
class Prediction:
    """The answer for an image. Its text is the label with the probability, and a doubt."""

    label: str  # the most probable class
    index: int
    probability: float  # 0 to 1, with six decimals
    known: bool  # whether the answer is reliable: probable enough, and of an image like those of the training
    top: tuple[Score, ...]  # up to five classes, the most probable first

    def __str__(self) -> str:
        return summary(self.label, self.probability, known=self.known)


def summary(label: str, probability: float, *, known: bool) -> str:
    """An answer for people, such as "cat (98.02%)"."""
    return f"{printable(label)} ({probability:.2%}{'' if known else '; not sure: perhaps none of the classes'})"


class Model:
    """A loaded model. It may be used from several threads."""

    def __init__(self, tag: str, loaded: Artifact) -> None:
        self.tag = tag  # NAME:VERSION
        self.class_names = loaded.class_names  # in the order of the indices
        self.threshold = loaded.threshold  # lowest probability of a known answer; None: an old model has none
        self.artifact = loaded
        self.engine = load_engine(loaded)  # for a single image, which has all CPUs
        # One engine for each CPU, if there is memory: threads that share a photo wait for each other after each layer.
        most = memory_budget() // (ENGINE_BYTES * loaded.model_file.stat().st_size)
        self._workers = min(available_cpus(), max(1, most))
        self._engines = 0
        self._idle: SimpleQueue[Engine] = SimpleQueue()
        self._threads = ThreadPoolExecutor(self._workers, "predict")
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return f"<Model {self.tag}: {len(self.class_names)} classes>"

    def predict(self, image: ImageInput) -> Prediction:
        """The prediction for one image: a path, the bytes of an image file, a PIL image, or an array.

        An array is uint8 [H,W], [H,W,3] (RGB) or [H,W,4] (RGBA). Raises InputError for a file that cannot be read or
        for another array, ImageError for an image that is refused, ArtifactError for an answer that is not finite.
        """
        (answer,) = self._answer([image], self.engine)
        if isinstance(answer, TrainerError):
            raise answer
        return answer

    def predict_many(
        self, images: Iterable[ImageInput], batch_size: int = BATCH_SIZE
    ) -> list[Prediction | TrainerError]:
        """The predictions for many images, in order, on all CPUs; a faulty image has its error in its place.

        `batch_size` images, at least 1, are in memory at once for each CPU. The answers do not depend on it.
        """
        return list(self.stream(images, batch_size))

    def stream(self, images: Iterable[ImageInput], batch_size: int = BATCH_SIZE) -> Iterator[Prediction | TrainerError]:
        """Yield what `predict_many` returns, as it comes; `images` are taken when they are needed.

        Raises InputError for a wrong `batch_size`.
        """
        if batch_size < 1:
            raise InputError(f"batch_size: {batch_size} is not at least 1")
        remaining = iter(images)
        pending: deque[Future[list[Prediction | TrainerError]]] = deque()
        try:
            while batch := list(islice(remaining, batch_size)):
                if len(batch) < batch_size and not pending:  # the only one: all CPUs for it
                    yield from self._answer(batch, self.engine)
                    return
                self._add_engine()
                pending.append(self._threads.submit(self._answer_in_thread, batch))
                if len(pending) > BATCHES_AHEAD * self._workers:
                    yield from pending.popleft().result()
            while pending:
                yield from pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()

    def read(self, image: ImageInput) -> NDArray[np.uint8]:
        """The image as the network sees it, uint8 [H,W,C], read-only. Raises InputError or ImageError."""
        try:
            return decode(encoded(image), self.artifact.pixels)
        except ImageError as error:
            raise ImageError(error.code, f"{described(image)}{error}") from error

    def classify(self, pixels: NDArray[np.uint8], engine: Engine) -> list[Prediction | TrainerError]:
        """The predictions for what `read` returned, uint8 [N,H,W,C]; an answer that is not finite is an error."""
        outputs = engine.predict(pixels)
        return [self._prediction({name: rows[row] for name, rows in outputs.items()}) for row in range(len(pixels))]

    def _add_engine(self) -> None:
        """Load one more engine, up to the number of workers; those before it are at work meanwhile."""
        with self._lock:  # the engine's start redirects stderr, which is the process's
            if self._engines < self._workers:
                self._idle.put(load_engine(self.artifact, threads=max(1, available_cpus() // self._workers)))
                self._engines += 1

    def _answer_in_thread(self, batch: Sequence[ImageInput]) -> list[Prediction | TrainerError]:
        engine = self._idle.get()
        try:
            return self._answer(batch, engine)
        finally:
            self._idle.put(engine)

    def _answer(self, batch: Sequence[ImageInput], engine: Engine) -> list[Prediction | TrainerError]:
        """The predictions for a batch, each faulty image's error in its place."""
        pixels: list[NDArray[np.uint8] | TrainerError] = []
        for image in batch:
            try:
                pixels.append(self.read(image))
            except (ImageError, InputError) as error:
                pixels.append(error)
        decoded = [item for item in pixels if not isinstance(item, TrainerError)]
        answers = iter(self.classify(np.stack(decoded), engine) if decoded else ())
        return [item if isinstance(item, TrainerError) else next(answers) for item in pixels]

    def _prediction(self, output: Outputs) -> Prediction | TrainerError:
        try:
            answer = prediction(output, self.class_names, self.threshold)
        except FloatingPointError as error:
            return ArtifactError(f"{self.tag}: {error}")
        return Prediction(**answer | {"top": tuple(Score(**score) for score in answer["top"])})


def load_model(name: str) -> Model:
    """Load a model of the BentoML store: NAME, which is its promoted version, or NAME:VERSION.

    Raises InputError, with the nearest names, where there is none, ArtifactError where it is damaged.
    """
    stored = store.find(name)
    return Model(stored.tag, artifact.load(stored.path))
