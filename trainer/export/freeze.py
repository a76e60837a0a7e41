"""A trained network as files that need no Keras: a frozen SavedModel and LiteRT files."""

from __future__ import annotations

import gc
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from trainer.artifact.engine import OOD_SCORE, PROBABILITIES
from trainer.artifact.explain import ACTIVATION
from trainer.errors import RunError
from trainer.features.ood import OODScore
from trainer.machine import quiet_stderr

Quantization = Literal["float32", "int8", "static-int8"]
# Not quantized by static-int8: all that comes after the convolutions. An int8 softmax has probabilities in steps of
# 1/256, and an int8 out-of-distribution score ends at the highest one of the images that the ranges are measured on.
FLOAT_OPERATIONS = (
    *("MEAN", "RESHAPE", "FULLY_CONNECTED", "SOFTMAX", "L2_NORMALIZATION"),
    *("TOPK_V2", "STRIDED_SLICE", "LESS"),
)


def freeze(model: Any, temperature: float = 1.0, ood_score: OODScore | None = None, features: str | None = None) -> Any:
    """Freeze the network into a concrete function without variables.

    The function maps uint8 [N,H,W,C] → probabilities float32 [N,K], from logits divided by `temperature`. With an
    `ood_score`, it also returns the score of the output of layer `features`, float32 [N].
    """
    import tensorflow as tf

    network = with_features(model, features if ood_score else None)

    def predict(images: Any) -> tuple[Any, ...]:
        logits, *values = network(images)
        return (tf.nn.softmax(logits / temperature), *([ood_score(values[0])] if ood_score else []))

    signature = tf.TensorSpec([None, *model.input_shape[1:]], tf.uint8, name="images")
    return _without_variables(tf.function(predict).get_concrete_function(signature))


def with_features(model: Any, features: str | None) -> Any:
    """The network uint8 [N,H,W,C] → logits and, where `features` names a layer, the output of that layer."""
    import keras

    if not features:
        return lambda images: (model(images, training=False),)
    network = keras.Model(model.input, [model.output, model.get_layer(features).output])
    return lambda images: network(images, training=False)


def save_frozen(frozen: Any, folder: Path, names: Sequence[str] = (PROBABILITIES, OOD_SCORE)) -> None:
    """Write a SavedModel with signature `serving_default`: `images` → the outputs, named by the first of `names`.

    Raises RunError where it cannot be written.
    """
    import tensorflow as tf

    spec = tf.TensorSpec(frozen.inputs[0].shape, tf.uint8, name="images")
    module = tf.Module()
    module.predict = tf.function(lambda images: dict(zip(names, frozen(images), strict=False)), input_signature=[spec])
    # Some activations of Keras (swish) have a gradient that cannot be saved, and nothing trains a frozen network.
    options = tf.saved_model.SaveOptions(experimental_custom_gradients=False)
    try:
        tf.saved_model.save(module, str(folder), signatures={"serving_default": module.predict}, options=options)
    except tf.errors.OpError as error:
        raise RunError(f"{folder}: the network could not be written: {error.message}") from error


def convert(saved_model: Path, quantization: Quantization, images: NDArray[np.uint8] | None = None) -> bytes:
    """Convert what `save_frozen` wrote to a LiteRT file. The conversion takes 16 times the memory of its weights.

    `int8`: weights in int8, activations quantized at run time (dynamic range). `static-int8`: weights and activations
    of convolutions in int8; the range of each activation is measured on `images` uint8 [N,H,W,C].
    """
    import tensorflow as tf

    converter = tf.lite.TFLiteConverter.from_saved_model(str(saved_model), signature_keys=["serving_default"])
    if quantization != "float32":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if quantization == "static-int8":
        assert images is not None
        converted = _convert_static(converter, images)
    else:
        converted = bytes(converter.convert())
    del converter
    gc.collect()  # cycles again
    return converted


def _convert_static(converter: Any, images: NDArray[np.uint8]) -> bytes:
    # Private: the public interface to `denylisted_ops`, QuantizationDebugger, converts three times as often.
    from tensorflow.lite.python.convert import mlir_quantize

    def samples() -> Iterator[dict[str, NDArray[np.uint8]]]:
        for image in images:
            yield {"images": image[None]}

    converter.representative_dataset = samples
    converter._experimental_calibrate_only = True
    with quiet_stderr(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TensorFlow calibrates with its own deprecated interpreter
        return bytes(mlir_quantize(converter.convert(), denylisted_ops=list(FLOAT_OPERATIONS)))


def save_activation(model: Any, file: Path) -> None:
    """Write the LiteRT file for class-activation maps, with weights in half precision.

    Writes nothing where `model` does not end in global average pooling and a dense layer.
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
    """The concrete function with constants in place of its variables."""
    # Private, and widely used: TensorFlow has no public way to turn variables into constants.
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    return convert_variables_to_constants_v2(function)
