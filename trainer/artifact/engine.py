"""Inference engines: uint8 images [N,H,W,C] → named float32 arrays, one row for each image."""

from __future__ import annotations

import contextlib
import importlib.util
import threading
from pathlib import Path
from typing import Literal, Protocol, get_args

import numpy as np
from numpy.typing import NDArray

from trainer.artifact.spec import Artifact
from trainer.errors import ArtifactError
from trainer.machine import available_cpus, quiet_stderr

Outputs = dict[str, NDArray[np.float32]]  # by the names of the network's signature
PROBABILITIES = "probabilities"  # float32 [N,K]; every network has it
OOD_SCORE = "novelty"  # float32 [N], 0..1: the share of validation images that are nearer to the training images
SIGNATURE = "serving_default"

EngineName = Literal["litert", "tensorflow"]
ENGINES: tuple[str, ...] = get_args(EngineName)


class Engine(Protocol):
    """A loaded network. Safe to call from several threads; the calls take turns."""

    def predict(self, images: NDArray[np.uint8]) -> Outputs:
        """uint8 [N,H,W,C], N at least 1 → `probabilities` float32 [N,K] and the other outputs of the network."""


def load_engine(artifact: Artifact, name: str = "litert", threads: int | None = None) -> Engine:
    """Load the engine `litert` or `tensorflow` for an artifact. Serving imports TensorFlow only here.

    `threads` None: `available_cpus()`. Raises ArtifactError if a file or package is missing, ValueError for an unknown
    name or a file that is not a network.
    """
    check_engine(artifact, name)
    if name == "tensorflow":
        return TensorFlowEngine(artifact.saved_model, threads)
    return LiteRTEngine(artifact.model_file, threads)


def check_engine(artifact: Artifact, name: str) -> None:
    """Raise what `load_engine` raises for a missing file or package, without loading anything."""
    if name not in ENGINES:
        raise ValueError(f"engine: {name!r} is not one of {', '.join(ENGINES)}")
    if name == "tensorflow" and not artifact.saved_model.is_dir():
        raise ArtifactError(
            f"{artifact.saved_model}: is missing, and the engine tensorflow needs it; a container image has none"
        )
    if name == "tensorflow" and importlib.util.find_spec("tensorflow") is None:
        raise ArtifactError(f"{artifact.saved_model}: needs the package tensorflow, which is not installed here")


class LiteRTEngine:
    """Runs a LiteRT file on the CPU, through XNNPACK."""

    def __init__(self, file: Path, threads: int | None = None) -> None:
        from ai_edge_litert.interpreter import Interpreter

        with quiet_stderr():
            self._interpreter = Interpreter(model_path=str(file), num_threads=threads or available_cpus())
            self._interpreter.allocate_tensors()
        (images,) = self._interpreter.get_input_details()
        outputs = self._interpreter.get_signature_runner(SIGNATURE).get_output_details()
        self._input: int = images["index"]
        self._outputs: dict[str, int] = {name: details["index"] for name, details in outputs.items()}
        self._batch_size = int(images["shape"][0])
        self._lock = threading.Lock()

    def predict(self, images: NDArray[np.uint8]) -> Outputs:
        with self._lock:
            # One interpreter for all batch sizes: a second one would hold another copy of the weights, and resizing
            # to a batch size that was used before costs 0.2 ms.
            if len(images) != self._batch_size:
                self._interpreter.resize_tensor_input(self._input, images.shape, strict=True)
                self._interpreter.allocate_tensors()
                self._batch_size = len(images)
            self._interpreter.set_tensor(self._input, images)
            self._interpreter.invoke()
            return {name: self._interpreter.get_tensor(index) for name, index in self._outputs.items()}


class TensorFlowEngine:
    """Runs the signature of a SavedModel."""

    def __init__(self, folder: Path, threads: int | None = None) -> None:
        with quiet_stderr():  # TensorFlow warns about missing CUDA drivers before it reads any setting
            import tensorflow as tf

            # TensorFlow refuses this once it has run in this process; its threads then stay as they are.
            with contextlib.suppress(RuntimeError):
                tf.config.threading.set_intra_op_parallelism_threads(threads or available_cpus())
            self._model = tf.saved_model.load(str(folder))  # keeps the variables of the signature alive
        self._constant = tf.constant
        self._signature = self._model.signatures[SIGNATURE]

    def predict(self, images: NDArray[np.uint8]) -> Outputs:
        return {name: values.numpy() for name, values in self._signature(images=self._constant(images)).items()}
