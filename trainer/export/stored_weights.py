"""Weights of a stored network, read from its frozen SavedModel: the inverse of `freeze`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainer.errors import ArtifactError
from trainer.export.freeze import freeze

FILE = "saved_model.pb"
FIRST_NUMBER = 1_000_000  # float32 counts exactly from here, and no architecture has such a constant


def read_weights(saved_model: Path, model: Any) -> list[NDArray[np.float32]]:
    """Weights of the network in the folder `saved_model`, in the order of `model.weights`.

    `model`, in float32, is of its architecture, and may have another number of classes. The temperature is not part of
    the weights: the network divides its logits by it. Raises ArtifactError for a file that cannot be read, or for
    another network.
    """
    own = model.get_weights()
    for number, weight in enumerate(model.weights, FIRST_NUMBER):
        weight.assign(np.full(weight.shape, number, np.float32))
    numbered = freeze(model).function_def
    model.set_weights(own)
    stored = {
        int(number.flat[0]) - FIRST_NUMBER: value
        for number, value in _pairs_of_constants(numbered, _read_function(saved_model), saved_model)
        if number.dtype == np.float32 and number.size and number.flat[0] >= FIRST_NUMBER
    }
    if len(stored) < len(own):
        raise _other_network(saved_model)
    return [stored[index] for index in range(len(own))]


def _pairs_of_constants(first: Any, second: Any, saved_model: Path) -> Iterator[tuple[NDArray[Any], NDArray[Any]]]:
    """The constants of two functions at the same place in the same network.

    Both are followed from their first output, the probabilities, to the constants. Names are no help: those of layers
    depend on what else was built in the process.
    """
    import tensorflow as tf

    nodes = [{node.name: node for node in function.node_def} for function in (first, second)]
    todo = [tuple(function.ret[function.signature.output_arg[0].name] for function in (first, second))]
    seen = set()
    while todo:
        # `NODE:OUTPUT:0`, or the argument `images`; `^NODE` only says what runs before.
        names = tuple(name.partition(":")[0] for name in todo.pop())
        if names in seen or "^" in names[0]:
            continue
        seen.add(names)
        ours, theirs = (of_function.get(name) for of_function, name in zip(nodes, names, strict=True))
        if ours is None and theirs is None:  # the images
            continue
        if ours is None or theirs is None or ours.op != theirs.op or len(ours.input) != len(theirs.input):
            raise _other_network(saved_model)
        todo += zip(ours.input, theirs.input, strict=True)
        if ours.op == "Const":
            values = tuple(tf.make_ndarray(node.attr["value"].tensor) for node in (ours, theirs))
            if values[0].shape[:-1] != values[1].shape[:-1]:  # the last layer's columns are the classes
                raise _other_network(saved_model)
            yield values


def _read_function(saved_model: Path) -> Any:
    """The function of the frozen network: the longest of the SavedModel, whose others save, load and call it."""
    from google.protobuf.message import DecodeError
    from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

    try:
        content = SavedModel.FromString((saved_model / FILE).read_bytes())
    except (OSError, DecodeError) as error:
        raise ArtifactError(f"{saved_model / FILE}: cannot be read: {error}") from error
    return max(content.meta_graphs[0].graph_def.library.function, key=lambda function: len(function.node_def))


def _other_network(saved_model: Path) -> ArtifactError:
    return ArtifactError(
        f"{saved_model}: its weights cannot be read: its network is not built as this version of trainer and Keras does"
    )
