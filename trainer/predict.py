"""`trainer predict` and `explain`: predictions for image files. Never imports TensorFlow."""

from __future__ import annotations

import collections
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainer import artifact
from trainer.artifact import Artifact, store
from trainer.artifact.engine import Engine, load_engine
from trainer.artifact.explain import explain, load_activation_engine
from trainer.artifact.prediction import prediction
from trainer.errors import ImageError, InputError, ResponseError
from trainer.images.decode import decode
from trainer.images.encode import encode_png
from trainer.images.pixels import PixelSpec
from trainer.images.saliency import overlay
from trainer.remote import Server


def predict_local(model: str, paths: Sequence[Path]) -> Iterator[dict[str, Any] | InputError]:
    """Predict image files with a stored model, in order: the HTTP prediction plus `path`, or the error of the file."""
    stored = store.find(model)
    loaded = artifact.load(stored.path)
    engine = load_engine(loaded)
    for read in _read_images(paths, loaded.pixels):
        yield read if isinstance(read, InputError) else _predict(stored.tag, loaded, engine, *read)


def explain_local(model: str, paths: Sequence[Path], output: Path | None) -> Iterator[dict[str, Any] | InputError]:
    """Predict image files and write a PNG for each: the model's input in gray under the saliency map of its answer.

    The prediction has the path of the PNG as `explanation`: NAME.explained.png in the folder `output` (default: the
    current folder), numbered if NAME occurs again. For one image, `output` may name the file.
    Raises InputError if the PNG cannot be written.
    """
    to_file = output is not None and output.suffix == ".png" and not output.is_dir()
    if to_file and len(paths) > 1:
        raise InputError(f"--output: {output} is one file, and there are {len(paths)} images; name a folder")
    stored = store.find(model)
    loaded = artifact.load(stored.path)
    engine, activation = load_engine(loaded), load_activation_engine(stored.path)
    uses: collections.Counter[str] = collections.Counter()  # of each NAME: files in several folders may share it
    for read in _read_images(paths, loaded.pixels):
        if isinstance(read, InputError):
            yield read
            continue
        path, image = read
        answer = _predict(stored.tag, loaded, engine, path, image)
        saliency = explain(image, answer["index"], engine, activation)
        uses[path.stem] += 1
        name = f"{path.stem}-{uses[path.stem]}" if uses[path.stem] > 1 else path.stem
        file = output if output and to_file else (output or Path()) / f"{name}.explained.png"
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(encode_png(overlay(image, saliency)))
        except OSError as error:
            raise InputError(f"--output: {file} cannot be written: {error.strerror}") from error
        yield answer | {"explanation": str(file)}


def predict_remote(url: str, paths: Sequence[Path], token: str = "") -> Iterator[dict[str, Any] | InputError]:
    """Predict image files with the server at `url`, with a bearer token unless empty.

    `url` may leave out http://. Raises InputError if no server answers there.
    """
    server = Server(url, token)
    for path in paths:
        try:
            image = _read(path)
        except InputError as error:
            yield error
            continue
        try:
            yield server.predict(image) | {"path": str(path)}
        except ResponseError as error:
            yield InputError(f"{path}: {error}")


def _read_images(paths: Sequence[Path], pixels: PixelSpec) -> Iterator[tuple[Path, NDArray[np.uint8]] | InputError]:
    """Each path with its image uint8 [H,W,C], or the error of the file."""
    for path in paths:
        try:
            yield path, decode(_read(path), pixels)
        except ImageError as error:
            yield InputError(f"{path}: {error}")
        except InputError as error:
            yield error


def _predict(tag: str, loaded: Artifact, engine: Engine, path: Path, image: NDArray[np.uint8]) -> dict[str, Any]:
    output = {name: rows[0] for name, rows in engine.predict(image[None]).items()}
    return prediction(output, loaded.class_names, loaded.threshold) | {"model": tag, "path": str(path)}


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from error
