"""Tensors of the Open Inference Protocol v2: in JSON, or in binary behind it.

A body has a JSON document, whose length the header Inference-Header-Content-Length tells, and then the binary tensors,
little-endian and row-major. An element of BYTES is four bytes of its length, and itself.
"""

from __future__ import annotations

import base64
import itertools
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NoReturn, cast, get_args

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter, ValidationError
from pydantic_core import from_json

from trainer.images.pixels import PixelSpec
from trainer.serving.decoding import Pixels
from trainer.serving.request import MAX_BATCH_IMAGES, MIB
from trainer.serving.responses import ApiError, to_json
from trainer.serving.schemas import DataType, InferInput, InferOutput, InferRequest, InferResponse, OutputName

Body = bytes | bytearray

# JSON is parsed in one go: the limits keep that to milliseconds. One image of the largest size fits, in base64.
MAX_JSON_BYTES = 16 * MIB
MAX_JSON_VALUES = 260_000  # as `count_values` counts them: 224×224×3 numbers, nested
VALUE_BYTES = 100  # of memory for each of them, at most; measured
# Characters that are neither structure nor an escape nor in UTF-8's longer forms: all others make the parser work.
_PLAIN = bytes(byte for byte in range(128) if byte not in b",:[]{}\\")
_REQUEST: TypeAdapter[InferRequest] = TypeAdapter(InferRequest)
OUTPUT_NAMES: tuple[OutputName, ...] = get_args(OutputName)
MAX_MESSAGE = 300  # characters; it may quote a number of thousands of digits


@dataclass(frozen=True)
class ParsedRequest:
    """Images, and how their answer is to be sent."""

    id: str | None
    images: Sequence[bytes | Pixels]  # encoded, or as the model sees them
    outputs: dict[OutputName, bool]  # in the order of the answer; whether in binary


def split(body: Body, length: str | None) -> tuple[bytes, memoryview]:
    """The JSON document, and the binary tensors. `length`: the header's value; None without one.

    Raises ApiError `bad_request` for a length that is no number or longer than the body, `too_large`.
    """
    view = memoryview(body)
    size = len(body)
    if length is not None:
        if not (length.isascii() and length.isdecimal() and len(length) < 12 and int(length) <= len(body)):
            _refuse(f"Inference-Header-Content-Length: {length[:20]!r} is no length within the {len(body)} bytes")
        size = int(length)
    if size > MAX_JSON_BYTES:
        raise ApiError("too_large", f"the JSON is too large: at most {MAX_JSON_BYTES // MIB} MiB; {_AS_BINARY}")
    return bytes(view[:size]), view[size:]


def count_values(document: bytes) -> int:
    """Upper bound of the values in a JSON document: those in brackets count up to three times.

    Raises ApiError `too_large` above MAX_JSON_VALUES.
    """
    values = len(document.translate(None, _PLAIN))
    if values > MAX_JSON_VALUES:
        raise ApiError("too_large", f"the JSON has over {MAX_JSON_VALUES:,} values; {_AS_BINARY}")
    return values


def read_json(document: bytes) -> InferRequest:
    """Raises ApiError `bad_request` for other JSON than a request's, or none."""
    try:
        return _REQUEST.validate_python(from_json(document, allow_inf_nan=False), strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        _refuse(": ".join(filter(None, (".".join(map(str, first["loc"])), first["msg"]))))
    except ValueError as error:
        _refuse(f"the body is no JSON: {error}")


def parse(request: InferRequest, binary: memoryview, spec: PixelSpec) -> ParsedRequest:
    """Raises ApiError `bad_request` for tensors or outputs that the protocol, or the model's input, does not allow."""
    (tensor,) = request["inputs"]
    size = (tensor.get("parameters") or {}).get("binary_data_size")
    data = tensor.get("data")
    if (size is None) == (data is None):
        _refuse(f"{tensor['name']}: either data or parameters.binary_data_size is expected")
    if len(binary) != (size or 0):
        _refuse(f"{len(binary)} bytes of binary tensors follow the JSON; {size or 0} are announced")
    if tensor["name"] == "images":
        images: Sequence[bytes | Pixels] = _images(tensor, binary if data is None else data, spec)
    else:
        images = _encoded(tensor, binary if data is None else data)
    return ParsedRequest(request.get("id"), images, _outputs(request))


def encode_response(
    model: str, request: ParsedRequest, answers: dict[OutputName, tuple[DataType, NDArray[Any]]]
) -> tuple[bytes, int | None]:
    """The body with the requested ones of `answers`, and the length of its JSON; None where it is JSON alone.

    `model` is NAME:VERSION. Arrays: float32 for FP32, bool for BOOL, objects (str) for BYTES.
    """
    outputs, tensors = [], []
    for name, in_binary in request.outputs.items():
        datatype, values = answers[name]
        output: InferOutput = {"name": name, "datatype": datatype, "shape": list(values.shape)}
        if in_binary:
            tensor = _to_bytes(values)
            output["parameters"] = {"binary_data_size": len(tensor)}
            tensors.append(tensor)
        else:
            output["data"] = values.ravel().tolist()
        outputs.append(output)
    model_name, _, version = model.partition(":")
    response: InferResponse = {"model_name": model_name, "model_version": version, "outputs": outputs}
    if request.id is not None:
        response["id"] = request.id
    document = to_json(response)
    return b"".join((document, *tensors)), len(document) if tensors else None


def _images(tensor: InferInput, data: memoryview | list[Any], spec: PixelSpec) -> Sequence[Pixels]:
    """Input `images`: views of [N,H,W,C]."""
    shape = tensor["shape"]
    size = [spec.height, spec.width, spec.channels]
    if tensor["datatype"] != "UINT8" or len(shape) != 4 or shape[1:] != size:
        _refuse(f"images: UINT8 of the shape {['N', *size]} is expected, not {tensor['datatype']} of {shape}")
    _check_count(shape[0])
    values = data if isinstance(data, memoryview) else _to_uint8(_flat(data, shape))
    if len(values) != shape[0] * spec.height * spec.width * spec.channels:
        _refuse(f"images: the data has {len(values)} values; the shape {shape} needs another number")
    return cast(Sequence[Pixels], np.frombuffer(values, np.uint8).reshape(shape))


def _encoded(tensor: InferInput, data: memoryview | list[Any]) -> list[bytes]:
    """Input `encoded`: files of images, of the shape [N] or [N,1]."""
    shape = tensor["shape"]
    if tensor["datatype"] != "BYTES" or not shape or shape[1:] not in ([], [1]):
        _refuse(f"encoded: BYTES of the shape ['N'] is expected, not {tensor['datatype']} of {shape}")
    _check_count(shape[0])
    if isinstance(data, memoryview):
        return _elements(data, shape[0])
    texts = _flat(data, shape)
    if len(texts) != shape[0]:
        _refuse(f"encoded: the data has {len(texts)} elements; the shape says {shape[0]}")
    return [_from_base64(text) for text in texts]


def _check_count(images: int) -> None:
    if not 1 <= images <= MAX_BATCH_IMAGES:
        _refuse(f"1 to {MAX_BATCH_IMAGES} images are expected in a request; the shape says {images}")


def _flat(data: list[Any], shape: list[int]) -> list[Any]:
    """Flat list of a tensor's data, which may be nested as its shape is."""
    if not data or not isinstance(data[0], list):
        return data
    for size in shape[1:]:
        if not all(isinstance(item, list) and len(item) == size for item in data):
            _refuse(f"data: neither flat nor nested as the shape {shape}")
        data = list(itertools.chain.from_iterable(data))
    return data


def _to_uint8(values: list[Any]) -> bytes:
    try:
        return bytes(values)
    except (TypeError, ValueError):
        _refuse("images: the data are not all whole numbers from 0 to 255")


def _from_base64(text: Any) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (TypeError, ValueError):
        _refuse("encoded: the data are not all strings in base64; a file as it is goes into a binary tensor")


def _elements(data: memoryview, count: int) -> list[bytes]:
    """The elements of a binary tensor of BYTES."""
    elements: list[bytes] = []
    position = 0
    for _ in range(count):
        start = position + 4
        if start > len(data) or (position := start + struct.unpack_from("<I", data, start - 4)[0]) > len(data):
            _refuse(f"encoded: the binary tensor ends within element {len(elements)}; the shape says {count}")
        elements.append(bytes(data[start:position]))
    if position < len(data):
        _refuse(f"encoded: the binary tensor goes on after element {count - 1}, the last one of the shape")
    return elements


def _to_bytes(values: NDArray[Any]) -> bytes:
    if values.dtype == object:
        texts = [text.encode() for text in values.ravel().tolist()]
        return b"".join(itertools.chain.from_iterable((struct.pack("<I", len(text)), text) for text in texts))
    return values.astype(values.dtype.newbyteorder("<"), copy=False).tobytes()


def _outputs(request: InferRequest) -> dict[OutputName, bool]:
    """The requested outputs, all without any; an output's own parameter decides before that of the request."""
    in_binary = (request.get("parameters") or {}).get("binary_data_output", False)
    requested = request.get("outputs") or [{"name": name} for name in OUTPUT_NAMES]
    outputs = {output["name"]: (output.get("parameters") or {}).get("binary_data", in_binary) for output in requested}
    if len(outputs) != len(requested):
        _refuse("outputs: one is named twice")
    return outputs


_AS_BINARY = "send the images as a binary tensor"


def _refuse(message: str) -> NoReturn:
    raise ApiError("bad_request", message[:MAX_MESSAGE])
