"""A trained network as files that need no Keras: without variables, as a SavedModel, and as LiteRT's."""

from __future__ import annotations

import gc
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from trainer.artifact.engine import NOVELTY, PROBABILITIES
from trainer.artifact.explain import ACTIVATION
from trainer.features.ood import Novelty


def freeze(model: Any, temperature: float = 1.0, novelty: Novelty | None = None, features: str | None = None) -> Any:
    """The network as a concrete function without variables: uint8 [N,H,W,C] → probabilities float32 [N,K], the logits
    being divided by `temperature`, and with a `novelty`, which takes the layer `features`, that, float32 [N].
    """
    import tensorflow as tf

    network = with_features(model, features if novelty else None)

    def answer(images: Any) -> tuple[Any, ...]:
        logits, *values = network(images)
        return (tf.nn.softmax(logits / temperature), *([novelty(values[0])] if novelty else []))

    signature = tf.TensorSpec([None, *model.input_shape[1:]], tf.uint8, name="images")
    return _without_variables(tf.function(answer).get_concrete_function(signature))


def with_features(model: Any, features: str | None) -> Any:
    """uint8 [N,H,W,C] → the logits of `model` and, where it names a layer, that one's output."""
    import keras

    if not features:
        return lambda images: (model(images, training=False),)
    network = keras.Model(model.input, [model.output, model.get_layer(features).output])
    return lambda images: network(images, training=False)


def save_frozen(frozen: Any, folder: Path, names: Sequence[str] = (PROBABILITIES, NOVELTY)) -> None:
    """A SavedModel without variables; signature `serving_default`: `images` → of `names` as many as it has outputs."""
    import tensorflow as tf

    spec = tf.TensorSpec(frozen.inputs[0].shape, tf.uint8, name="images")
    module = tf.Module()
    module.answer = tf.function(lambda images: dict(zip(names, frozen(images), strict=False)), input_signature=[spec])
    tf.saved_model.save(module, str(folder), signatures={"serving_default": module.answer})


def convert(saved_model: Path, *, quantize: bool) -> bytes:
    """The LiteRT file of what `save_frozen` wrote; `quantize` stores the weights in int8 (dynamic range: activations
    at run time). While it runs it takes about 16 times the memory of the float32 weights."""
    import tensorflow as tf

    converter = tf.lite.TFLiteConverter.from_saved_model(str(saved_model), signature_keys=["serving_default"])
    if quantize:
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converted = bytes(converter.convert())
    del converter
    gc.collect()  # cycles again
    return converted


def save_activation(model: Any, file: Path) -> None:
    """Write the LiteRT file that gives a picture's class-activation map, with weights in half precision; nothing where
    `model` does not end in a global mean of its features and a dense layer.
    """
    import keras
    import tensorflow as tf

    *below, dense = [layer for layer in model.layers if not isinstance(layer, keras.layers.Dropout)]
    if not below or not isinstance(pool := below[-1], keras.layers.GlobalAveragePooling2D):
        return
    network = keras.Model(model.input, pool.input)
    kernel = tf.constant(dense.kernel.numpy()[None, None])
    signature = tf.TensorSpec([None, *model.input_shape[1:]], tf.uint8, name="images")
    activation = tf.function(lambda images: (tf.nn.conv2d(network(images, training=False), kernel, 1, "VALID"),))
    with tempfile.TemporaryDirectory() as folder:
        save_frozen(_without_variables(activation.get_concrete_function(signature)), Path(folder), (ACTIVATION,))
        converter = tf.lite.TFLiteConverter.from_saved_model(folder, signature_keys=["serving_default"])
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.target_spec.supported_types = [tf.float16]
        file.write_bytes(converter.convert())


def _without_variables(function: Any) -> Any:
    """The same concrete function, with constants in their place."""
    # Private, and used by everybody: TensorFlow has no public way to make constants of variables.
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    return convert_variables_to_constants_v2(function)
