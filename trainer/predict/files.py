"""Image files that a command line names, and their predictions as the HTTP contract has them."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from trainer.data.sources.image_files import IMAGE_SUFFIXES, walk
from trainer.errors import InputError, TrainerError
from trainer.predict.model import Model, Prediction, load_model

# The HTTP prediction plus `path`, or the error of the file.
Answer = dict[str, Any] | TrainerError


def find_images(paths: Sequence[Path]) -> list[Path]:
    """The files among `paths`, and the images of each folder and of those in it, as `folder:PATH` finds them.

    Raises InputError for a folder that cannot be read or has no images.
    """
    return [file for path in paths for file in (_images_of(path) if path.is_dir() else [path])]


class LocalFiles:
    """Answers of a model of the store for image files. Raises what `load_model` raises."""

    def __init__(self, name: str) -> None:
        self._model = load_model(name)

    @property
    def tag(self) -> str:
        return self._model.tag

    def predict(self, paths: Sequence[Path]) -> Iterator[Answer]:
        """Yield the answers for image files, in order."""
        for path, answer in zip(paths, self._model.stream(paths), strict=True):
            yield http_answer(self._model, path, answer) if isinstance(answer, Prediction) else answer


def http_answer(model: Model, path: Path, answer: Prediction) -> dict[str, Any]:
    """The JSON object of an answer."""
    return dataclasses.asdict(answer) | {"model": model.tag, "path": os.fspath(path)}


def _images_of(folder: Path) -> list[Path]:
    try:
        images = [Path(entry.path) for kind, entry in walk(os.fspath(folder)) if kind == "image"]
    except OSError as error:
        raise InputError(f"{error.filename} cannot be read: {error.strerror}") from error
    if not images:
        raise InputError(f"{folder} has no images ({', '.join(IMAGE_SUFFIXES)} are read)")
    return images
