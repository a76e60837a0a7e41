"""LitServe with its own batching, with the same engine and decoder. It takes JSON with the image in base64."""

import base64
import os
import sys
from pathlib import Path
from typing import Any, cast

import litserve
import numpy as np
from fastapi import Request

from trainer import artifact
from trainer.artifact.engine import PROBABILITIES, load_engine
from trainer.artifact.prediction import prediction
from trainer.images.decode import decode


class Api(litserve.LitAPI):
    def setup(self, device: str) -> None:
        self.artifact = artifact.load(Path(os.environ["ARTIFACT"]))
        self.engine = load_engine(self.artifact)

    def decode_request(self, request: Request, **_: Any) -> Any:  # LitServe passes the parsed JSON
        return decode(base64.b64decode(cast(Any, request)["image"]), self.artifact.pixels)

    def batch(self, inputs: list[Any]) -> Any:
        return np.stack(inputs)

    def predict(self, x: Any, **_: Any) -> Any:
        return self.engine.predict(x)[PROBABILITIES]

    def unbatch(self, output: Any) -> list[Any]:
        return list(output)

    def encode_response(self, output: Any, **_: Any) -> dict[str, Any]:
        return prediction({PROBABILITIES: output}, self.artifact.class_names, self.artifact.threshold)


if __name__ == "__main__":
    server = litserve.LitServer(
        Api(max_batch_size=64, batch_timeout=0.005, api_path="/predict"), accelerator="cpu", healthcheck_path="/readyz"
    )
    server.run(host="127.0.0.1", port=int(sys.argv[1]), generate_client_file=False, log_level="warning")
