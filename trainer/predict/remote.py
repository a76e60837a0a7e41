"""Predictions of a running server for image files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from trainer.errors import InputError, ResponseError
from trainer.predict.files import Answer
from trainer.predict.image_input import encoded
from trainer.remote import Server


class RemoteFiles:
    """Answers of a server for image files. Raises InputError for a malformed address."""

    def __init__(self, url: str, token: str = "") -> None:
        """`url` may leave out http://; `token` is sent unless it is empty."""
        self._server = Server(url, token)

    @property
    def tag(self) -> str:
        """NAME:VERSION of the model, as the server says. Raises InputError if it does not."""
        try:
            return str(self._server.model()["model"])
        except (ResponseError, KeyError, TypeError) as error:
            reason = error if isinstance(error, ResponseError) else "it names no model"
            raise InputError(f"--url: {self._server.url}/model: {reason}") from error

    def predict(self, paths: Sequence[Path]) -> Iterator[Answer]:
        """Yield the answers for image files, in order. Raises InputError if no server answers."""
        for path in paths:
            try:
                data = encoded(path)
            except InputError as error:
                yield error
                continue
            try:
                answer = self._server.predict(data)
            except ResponseError as error:
                yield InputError(f"{path}: {error}")
            else:
                yield answer | {"path": str(path)}
