"""Features of a frozen pretrained network, computed once for each image, whatever data set names it, and cached."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainer.data import Split
from trainer.data.batches import predict_batches
from trainer.data.cache.entries import find_arrays, load_array
from trainer.data.cache.images import decoder_versions
from trainer.machine import available_cpus, quiet_stderr, return_free_memory
from trainer.models import Architecture

log = logging.getLogger("trainer")

FORMAT = 3  # raise it when the same images and weights give other features
FEATURES = "features"
Extractor = Callable[[NDArray[np.uint8]], NDArray[np.float32]]  # uint8 [N,H,W,3] → float32 [N,F]


class NotCached(Exception):
    """The features are not in the cache, and there is no network to compute them."""


class Features:
    """Features from the network of `architecture` for splits of one data set.

    `model` is a float32 network of that architecture; its last layer is not used. With None, only cached features are
    available, and NotCached is raised for all others. `adapted` resizes the images to the network's own size and makes
    gray ones colour; otherwise the network takes them as they are. `check_interrupted` raises Interrupted after a
    signal.
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
        """Features of all images in order, float32 [len(split), F]; `mirrored`: of the images flipped left to right."""
        return load_array(
            self.key(split, mirrored=mirrored), lambda: self._complete(split, mirrored), split.content_hashes
        )

    def key(self, split: Split, *, mirrored: bool = False) -> dict[str, Any]:
        """Cache key: everything that affects the features, in plain JSON values."""
        return self._facts(split, mirrored) | {
            "images": split.cache.stored_fingerprint,
            "rows": hashlib.sha256(split.indices.tobytes()).hexdigest(),
        }

    def _facts(self, split: Split, mirrored: bool) -> dict[str, Any]:
        """Everything that affects the features of an image besides its file, in plain JSON values."""
        return {
            "features": FORMAT,
            "weights": self._architecture.weights_id,
            "pixels": split.cache.pixels.to_dict(),
            "decoders": list(decoder_versions()),
            "mirrored": mirrored,
            "adapted": list(self._model.input_shape[1:]) if self._adapted else None,
        }

    def _complete(self, split: Split, mirrored: bool) -> NDArray[np.float32]:
        """Features of `split`: those of files that are cached for other data sets, and the others computed."""
        wanted = split.content_hashes
        missing = np.ones(len(split), np.bool_)
        known: list[tuple[NDArray[np.int64], NDArray[np.float32]]] = []
        for contents, features in find_arrays(self._facts(split, mirrored)):
            order = np.argsort(contents)
            row = order[np.searchsorted(contents, wanted, sorter=order).clip(max=len(order) - 1)]
            found = np.flatnonzero(missing & (contents[row] == wanted))
            missing[found] = False
            known.append((found, features[row[found]]))
        rest = np.flatnonzero(missing)
        if len(rest) < len(split):
            log.info("reusing the features of %d of %d images", len(split) - len(rest), len(split))
        if len(rest):
            known.append((rest, self._compute(Split(split.cache, split.indices[rest]), mirrored)))
        complete = np.empty((len(split), known[-1][1].shape[1]), np.float32)
        for positions, features in known:
            complete[positions] = features
        return complete

    def _compute(self, split: Split, mirrored: bool) -> NDArray[np.float32]:
        if self._model is None:
            raise NotCached
        extract = self._extract = self._extract or make_extractor(self._model, self._architecture.features or "")

        def predict(images: NDArray[np.uint8]) -> Mapping[str, NDArray[np.float32]]:
            images = images[:, :, ::-1] if mirrored else images
            images = adapt(images, self._model.input_shape[1:]) if self._adapted else images
            return {FEATURES: extract(np.ascontiguousarray(images))}

        what = "features of mirrored images" if mirrored else "features of images"
        features = predict_batches(predict, split, what, check_interrupted=self.check_interrupted)[FEATURES]
        return_free_memory()  # of the conversion for LiteRT and of the largest batch: 0.4 GB
        return features


def adapt(images: NDArray[np.uint8], shape: tuple[int, int, int]) -> NDArray[np.uint8]:
    """uint8 [N,H,W,C] → uint8 [N, *shape]; gray becomes colour."""
    import tensorflow as tf

    resized = tf.image.resize(images, shape[:2], antialias=True)
    whole: NDArray[np.uint8] = tf.saturate_cast(tf.round(resized), tf.uint8).numpy()
    return np.broadcast_to(whole, (len(images), *shape))


def make_extractor(model: Any, layer: str) -> Extractor:
    """Extractor of the outputs of a `model`'s layer: TensorFlow on a GPU; LiteRT on CPUs, where it is twice as fast."""
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
    return _litert_extractor(file)


def _litert_extractor(file: bytes) -> Extractor:
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
