"""Open Inference Protocol v2 over HTTP, which the clients of KServe, Triton, Seldon and OpenVINO speak."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainer.artifact.engine import PROBABILITIES
from trainer.serving.compression import compress
from trainer.serving.inference import Inference
from trainer.serving.loaded_model import LoadedModel
from trainer.serving.middleware import Routes
from trainer.serving.open_inference_paths import MODEL, PREFIX, model_of
from trainer.serving.request import CHUNK_BYTES, MAX_BATCH_BYTES, MAX_FRAMING_BYTES, Request
from trainer.serving.responses import ApiError, Response, json_response
from trainer.serving.schemas import (
    DataType,
    ModelMetadata,
    ModelReady,
    OutputName,
    ServerLive,
    ServerMetadata,
    ServerReady,
)
from trainer.serving.tensors import (
    OUTPUT_NAMES,
    VALUE_BYTES,
    ParsedRequest,
    count_values,
    encode_response,
    parse,
    read_json,
    split,
)

NAME, VERSION = "trainer", "0.1.0"  # of the server; the image has no metadata of packages
PLATFORM = "trainer"
LENGTH_HEADER = "inference-header-content-length"
RAW = "0"  # value of that header: the body is one encoded image, and nothing else


class OpenInference:
    """Handlers of the protocol. They read the loaded model once for each request."""

    def __init__(self, inference: Inference, is_ready: Callable[[], bool]) -> None:
        self._inference = inference
        self._is_ready = is_ready
        self.routes: Routes = {
            PREFIX: ("GET", self._get_server),
            f"{PREFIX}/health/live": ("GET", self._get_live),
            f"{PREFIX}/health/ready": ("GET", self._get_ready),
            MODEL: ("GET", self._get_model),
            f"{MODEL}/ready": ("GET", self._get_model_ready),
            f"{MODEL}/infer": ("POST", self._post_infer),
        }

    async def _get_server(self, _: Request) -> Response:
        body: ServerMetadata = {"name": NAME, "version": VERSION, "extensions": ["binary_tensor_data"]}
        return json_response(body)

    async def _get_live(self, _: Request) -> Response:
        body: ServerLive = {"live": True}
        return json_response(body)

    async def _get_ready(self, _: Request) -> Response:
        self._check_ready()
        body: ServerReady = {"ready": True}
        return json_response(body)

    async def _get_model(self, request: Request) -> Response:
        loaded = self._requested_model(request)
        name, _, version = loaded.tag.partition(":")
        pixels = loaded.pixels
        body: ModelMetadata = {
            "name": name,
            "versions": [version],
            "platform": PLATFORM,
            "inputs": [
                {"name": "images", "datatype": "UINT8", "shape": [-1, pixels.height, pixels.width, pixels.channels]},
                {"name": "encoded", "datatype": "BYTES", "shape": [-1]},
            ],
            "outputs": [
                {"name": "probabilities", "datatype": "FP32", "shape": [-1, len(loaded.class_names)]},
                {"name": "label", "datatype": "BYTES", "shape": [-1]},
                {"name": "known", "datatype": "BOOL", "shape": [-1]},
            ],
        }
        if failed := self._inference.failed_version:
            body["parameters"] = {"failed_version": failed.tag.partition(":")[2], "reason": failed.reason}
        return json_response(body)

    async def _get_model_ready(self, request: Request) -> Response:
        loaded = self._requested_model(request)
        self._check_ready()
        body: ModelReady = {"name": loaded.tag.partition(":")[0], "ready": True}
        return json_response(body)

    async def _post_infer(self, request: Request) -> Response:
        loaded = self._requested_model(request)
        body = await request.unpacked_body(MAX_BATCH_BYTES + MAX_FRAMING_BYTES)
        length = request.headers.get(LENGTH_HEADER)
        if length == RAW:
            parsed = ParsedRequest(None, [bytes(body)], dict.fromkeys(OUTPUT_NAMES, True))
        else:
            document, binary = split(body, length)
            # Strings of the document, files of the tensors, and files from base64 are copies.
            request.charge(3 * len(document) + VALUE_BYTES * count_values(document) + len(binary))
            wanted = read_json(document)
            if len(document) > CHUNK_BYTES:
                await asyncio.sleep(0)  # other requests have their turn
            parsed = parse(wanted, binary, loaded.pixels)
        results = await request.while_connected(self._inference.infer(loaded, parsed.images, request.charged))
        answers: dict[OutputName, tuple[DataType, NDArray[Any]]] = {
            "probabilities": ("FP32", np.stack([outputs[PROBABILITIES] for outputs, _ in results])),
            "label": ("BYTES", np.array([answer["label"] for _, answer in results], object)),
            "known": ("BOOL", np.array([answer["known"] for _, answer in results])),
        }
        content, json_bytes = encode_response(loaded.tag, parsed, answers)
        if json_bytes is None:
            response = Response(200, content)
        else:
            headers = ((LENGTH_HEADER.encode(), str(json_bytes).encode()),)
            response = Response(200, content, "application/octet-stream", headers)
        return compress(response, request.headers.get("accept-encoding", ""))

    def _check_ready(self) -> None:
        if not self._is_ready():
            raise ApiError("not_ready", "the server is starting or stopping")

    def _requested_model(self, request: Request) -> LoadedModel:
        """The loaded model. Raises ApiError `not_found` where the path names another one, or another version."""
        loaded = self._inference.loaded
        served_name, _, served_version = loaded.tag.partition(":")
        name, version = model_of(request.path)
        if name != served_name or version not in (None, served_version):
            asked = name if version is None else f"{name}:{version}"
            raise ApiError("not_found", f"the model {asked[:100]!r} is not served here: {loaded.tag} is")
        return loaded
