"""uint8 images [N,H,W,C] → probabilities float32 [N,K]: the frozen network at work."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, Protocol, get_args

import numpy as np
from numpy.typing import NDArray

from trainer.serving.artifact import Artifact, ArtifactError

CGROUPS = Path("/sys/fs/cgroup")
MEMBERSHIP = Path("/proc/self/cgroup")


EngineName = Literal["litert", "tensorflow"]
ENGINES: tuple[str, ...] = get_args(EngineName)


class Engine(Protocol):
    """A loaded network. Safe to call from several threads; the calls take turns."""

    def predict(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """uint8 [N,H,W,C], N at least 1 → probabilities float32 [N,K]."""


def load_engine(artifact: Artifact, name: str = "litert", threads: int | None = None) -> Engine:
    """The engine `litert` or `tensorflow` (the one way that serving imports TensorFlow) for an artifact.

    `threads` None: `available_cpus()`. Raises ArtifactError where a file or package is missing,
    ValueError for another name or a file that is no network.
    """
    check_engine(artifact, name)
    if name == "tensorflow":
        return TensorFlowEngine(artifact.saved_model, threads)
    return LiteRTEngine(artifact.model_file, threads)


def check_engine(artifact: Artifact, name: str) -> None:
    """Raise what `load_engine` would raise for want of a file or a package, without loading anything."""
    if name not in ENGINES:
        raise ValueError(f"engine: {name!r} is not one of {', '.join(ENGINES)}")
    if name == "tensorflow" and not artifact.saved_model.is_dir():
        raise ArtifactError(
            f"{artifact.saved_model}: is missing, and the engine tensorflow needs it; an image has none"
        )
    if name == "tensorflow" and importlib.util.find_spec("tensorflow") is None:
        raise ArtifactError(f"{artifact.saved_model}: needs the package tensorflow, which is not installed here")


class LiteRTEngine:
    """A LiteRT file on the CPU, through XNNPACK."""

    def __init__(self, file: Path, threads: int | None = None) -> None:
        from ai_edge_litert.interpreter import Interpreter

        with quiet_stderr():
            self._interpreter = Interpreter(model_path=str(file), num_threads=threads or available_cpus())
            self._interpreter.allocate_tensors()
        (images,) = self._interpreter.get_input_details()
        (probabilities,) = self._interpreter.get_output_details()
        self._input: int = images["index"]
        self._output: int = probabilities["index"]
        self._batch_size = int(images["shape"][0])
        self._lock = threading.Lock()

    def predict(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        with self._lock:
            # One interpreter for all batch sizes: another would hold the weights once more, and going back to
            # a size that has been used costs 0.2 ms.
            if len(images) != self._batch_size:
                self._interpreter.resize_tensor_input(self._input, images.shape, strict=True)
                self._interpreter.allocate_tensors()
                self._batch_size = len(images)
            self._interpreter.set_tensor(self._input, images)
            self._interpreter.invoke()
            return self._interpreter.get_tensor(self._output)


class TensorFlowEngine:
    """A SavedModel's signature `serving_default`."""

    def __init__(self, folder: Path, threads: int | None = None) -> None:
        with quiet_stderr():  # TensorFlow warns of missing CUDA drivers before any setting of its own is read
            import tensorflow as tf

            # Refused once TensorFlow has begun to work in this process: then its threads stay as they are.
            with contextlib.suppress(RuntimeError):
                tf.config.threading.set_intra_op_parallelism_threads(threads or available_cpus())
            self._model = tf.saved_model.load(str(folder))  # keeps alive what the signature refers to
        self._constant = tf.constant
        self._signature = self._model.signatures["serving_default"]

    def predict(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        return self._signature(images=self._constant(images))["probabilities"].numpy()


def available_cpus() -> int:
    """How many CPUs this process may use: the smaller of its affinity and its cgroup's quota, at least 1."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        membership = MEMBERSHIP.read_text()
    except OSError:
        return allowed
    # Rounded down: a thread beyond the quota is throttled, and the rest of the batch waits for it.
    return max(1, int(min(allowed, cgroup_cpus(membership, CGROUPS))))


def cgroup_cpus(membership: str, root: Path) -> float:
    """The tightest CPU quota, in CPUs, on the way from a process's cgroup up to the root; inf without any.

    `membership` is the text of /proc/PID/cgroup; `root` is where the cgroups (version 2, or 1) are mounted.
    """
    quotas = [float("inf")]
    for line in membership.splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        base = root / "cpu" if controllers else root
        folder = base / path.lstrip("/")
        # In a container the path may be the host's, which is not mounted; the container's own is the base.
        while True:
            quotas.append(_quota(folder))
            if folder == base or base not in folder.parents:
                break
            folder = folder.parent
    return min(quotas)


def _quota(folder: Path) -> float:
    """CPUs that one cgroup allows (`cpu.max` in version 2, `cpu.cfs_*` in version 1); inf without a limit."""
    try:
        if (folder / "cpu.max").exists():
            quota, period = (folder / "cpu.max").read_text().split()
        else:
            quota = (folder / "cpu.cfs_quota_us").read_text()
            period = (folder / "cpu.cfs_period_us").read_text()
        return int(quota) / int(period) if int(quota) > 0 else float("inf")
    except (OSError, ValueError):  # not there, or "max"
        return float("inf")


@contextlib.contextmanager
def quiet_stderr() -> Iterator[None]:
    """Drop what C++ code writes to stderr: LiteRT announces its delegate, and knows no switch for that."""
    saved = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(saved, 2)
        os.close(nowhere)
        os.close(saved)
