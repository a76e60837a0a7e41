"""The features of pictures: what a frozen pretrained network tells of each, computed once and kept in the cache."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainer.data import Split
from trainer.data.cache.entries import load_array
from trainer.data.progress import track
from trainer.machine import available_cpus, evaluation_batch, quiet_stderr
from trainer.models import Architecture

log = logging.getLogger("trainer")

FORMAT = 2  # raise it when the same pictures and weights give other features
Extractor = Callable[[NDArray[np.uint8]], NDArray[np.float32]]  # uint8 [N,H,W,3] → float32 [N,F]


class NotKept(Exception):
    """Features that are not in the cache were asked for, and there is no network to compute them."""


class Features:
    """The features of `architecture`'s network for splits of one data set.

    `model` is a float32 network of that architecture, whose last layer does not matter; None: only what the cache has
    can be had, and NotKept is raised for the rest. It takes the splits' pictures as they are, or in its own size and
    colour where they are `adapted`. `check_interrupted` raises Interrupted once a signal has come.
    """

    def __init__(
        self, architecture: Architecture, model: Any, check_interrupted: Callable[[], None], *, adapted: bool = False
    ) -> None:
        self._architecture = architecture
        self._adapted = adapted
        self.check_interrupted = check_interrupted
        self._model = model
        self._extract: Extractor | None = None

    def of(self, split: Split, *, mirrored: bool = False) -> NDArray[np.float32]:
        """float32 [len(split), F], in order; `mirrored`: of the pictures left to right."""
        return load_array(self.key(split, mirrored=mirrored), lambda: self._compute(split, mirrored))

    def key(self, split: Split, *, mirrored: bool = False) -> dict[str, Any]:
        """All that decides them, in plain JSON values."""
        return {
            "features": FORMAT,
            "weights": self._architecture.weights_id,
            "images": split.cache.fingerprint,
            "rows": hashlib.sha256(split.indices.tobytes()).hexdigest(),
            "mirrored": mirrored,
            "adapted": list(self._model.input_shape[1:]) if self._adapted else None,
        }

    def _compute(self, split: Split, mirrored: bool) -> NDArray[np.float32]:
        if self._model is None:
            raise NotKept
        self._extract = self._extract or make_extractor(self._model, self._architecture.features or "")
        height, width, _ = split.shape
        what = "features of mirrored images" if mirrored else "features of images"
        batches = track(split.batches(evaluation_batch(height, width)), len, total=len(split), what=what, bar=None)
        parts = []
        for images in batches:
            self.check_interrupted()
            turned = images[:, :, ::-1] if mirrored else images
            taken = adapt(turned, self._model.input_shape[1:]) if self._adapted else turned
            parts.append(self._extract(np.ascontiguousarray(taken)))
        return np.concatenate(parts)


def adapt(images: NDArray[np.uint8], shape: tuple[int, int, int]) -> NDArray[np.uint8]:
    """uint8 [N,H,W,C] → uint8 [N, *shape]; gray becomes colour."""
    import tensorflow as tf

    resized = tf.image.resize(images, shape[:2], antialias=True)
    whole: NDArray[np.uint8] = tf.saturate_cast(tf.round(resized), tf.uint8).numpy()
    return np.broadcast_to(whole, (len(images), *shape))


def make_extractor(model: Any, layer: str) -> Extractor:
    """What gives the output of a `model`'s layer: TensorFlow on a GPU; on CPUs LiteRT, which is twice as fast."""
    import keras
    import tensorflow as tf

    network = keras.Model(model.input, model.get_layer(layer).output)
    signature = tf.TensorSpec([None, *model.input_shape[1:]], tf.uint8)
    forward = tf.function(lambda images: network(images, training=False), input_signature=[signature])
    if tf.config.list_physical_devices("GPU"):
        return lambda images: forward(tf.constant(images)).numpy()
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    frozen = convert_variables_to_constants_v2(forward.get_concrete_function())
    with quiet_stderr():
        file = tf.lite.TFLiteConverter.from_concrete_functions([frozen], network).convert()
    return _through_litert(file)


def _through_litert(file: bytes) -> Extractor:
    from ai_edge_litert.interpreter import Interpreter

    with quiet_stderr():
        interpreter = Interpreter(model_content=file, num_threads=available_cpus())
        interpreter.allocate_tensors()
    (images_in,) = interpreter.get_input_details()
    (features_out,) = interpreter.get_output_details()

    def extract(images: NDArray[np.uint8]) -> NDArray[np.float32]:
        if len(images) != interpreter.get_input_details()[0]["shape"][0]:
            interpreter.resize_tensor_input(images_in["index"], images.shape, strict=True)
            interpreter.allocate_tensors()
        interpreter.set_tensor(images_in["index"], images)
        interpreter.invoke()
        features: NDArray[np.float32] = interpreter.get_tensor(features_out["index"])
        return features

    return extract
