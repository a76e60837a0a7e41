"""Requests and answers of the Open Inference Protocol v2, put together and taken apart by hand."""

from __future__ import annotations

import json
import struct
from typing import Any

import numpy as np
from numpy.typing import NDArray
from server import Reply, Server

INFER = "/v2/models/tiny/infer"
LENGTH = "Inference-Header-Content-Length"
DTYPES = {"FP32": "<f4", "BOOL": "?"}


def infer(server: Server, request: dict[str, Any], headers: dict[str, str] | None = None) -> Reply:
    return server.ask("POST", INFER, json.dumps(request).encode(), headers=headers)


def assert_refused(reply: Reply, status: int, message: str) -> None:
    assert reply.headers["content-type"] == "application/json"
    assert list(reply.value) == ["error"]
    assert (reply.status, message in reply.value["error"]) == (status, True), reply.body


def document(name: str, datatype: str, shape: list[Any], **more: Any) -> dict[str, Any]:
    """A request's JSON with one input; `data` and `parameters` belong to the input."""
    own = {key: more.pop(key) for key in ("data", "parameters") if key in more}
    return {"inputs": [{"name": name, "datatype": datatype, "shape": shape, **own}], **more}


def elements(*texts: bytes) -> bytes:
    """A binary tensor of BYTES."""
    return b"".join(struct.pack("<I", len(text)) + text for text in texts)


def with_tensor(request: dict[str, Any], tensor: bytes) -> tuple[bytes, dict[str, str]]:
    """Body and headers of a request whose input is in binary."""
    (first,) = request["inputs"]
    sized = {**request, "inputs": [{**first, "parameters": {"binary_data_size": len(tensor)}}]}
    head = json.dumps(sized).encode()
    return head + tensor, {LENGTH: str(len(head))}


def outputs_of(reply: Reply) -> dict[str, NDArray[Any]]:
    """The outputs of an answer, which may have binary tensors; their sizes must add up."""
    head, position = reply.body, len(reply.body)
    if LENGTH.lower() in reply.headers:
        position = int(reply.headers[LENGTH.lower()])
        head = reply.body[:position]
    outputs = {}
    for output in json.loads(head)["outputs"]:
        if "parameters" in output:
            assert list(output["parameters"]) == ["binary_data_size"]
            assert "data" not in output
            data = reply.body[position : (position := position + output["parameters"]["binary_data_size"])]
            values = _texts(data) if output["datatype"] == "BYTES" else np.frombuffer(data, DTYPES[output["datatype"]])
        else:
            values = np.array(output["data"], object if output["datatype"] == "BYTES" else DTYPES[output["datatype"]])
        outputs[output["name"]] = values.reshape(output["shape"])
    assert position == len(reply.body)
    return outputs


def _texts(data: bytes) -> NDArray[Any]:
    texts = []
    while data:
        size = struct.unpack_from("<I", data)[0]
        texts.append(data[4 : 4 + size].decode())
        data = data[4 + size :]
    return np.array(texts, object)
