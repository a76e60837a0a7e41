"""Explanations of the predictions for image files, as PNG files."""

from __future__ import annotations

import collections
from collections.abc import Iterator, Sequence
from pathlib import Path

from trainer.artifact.explain import explain, load_activation_engine
from trainer.errors import ImageError, InputError
from trainer.files import writing_to
from trainer.images.encode import encode_png
from trainer.images.saliency import overlay
from trainer.predict.files import Answer, http_answer
from trainer.predict.model import Model, Prediction


def explain_files(model: Model, paths: Sequence[Path], output: Path | None) -> Iterator[Answer]:
    """Predict image files and write a PNG for each: the model's input in gray under the saliency map of its answer.

    The answer has the path of the PNG as `explanation`: NAME.explained.png in the folder `output` (default: the
    current folder), numbered if NAME occurs again. For one image, `output` may name the file.
    Raises InputError if the PNG cannot be written.
    """
    to_file = output is not None and output.suffix == ".png" and not output.is_dir()
    if to_file and len(paths) > 1:
        raise InputError(f"--output: {output} is one file, and there are {len(paths)} images; name a folder")
    activation = load_activation_engine(model.artifact.path)
    uses: collections.Counter[str] = collections.Counter()  # of each NAME: files in several folders may share it
    for path in paths:
        try:
            image = model.read(path)
        except (ImageError, InputError) as error:
            yield error
            continue
        (answer,) = model.classify(image[None], model.engine)
        if not isinstance(answer, Prediction):
            yield answer
            continue
        saliency = explain(image, answer.index, model.engine, activation)
        uses[path.stem] += 1
        name = f"{path.stem}-{uses[path.stem]}" if uses[path.stem] > 1 else path.stem
        file = output if output and to_file else (output or Path()) / f"{name}.explained.png"
        with writing_to(f"--output: {file}"):
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(encode_png(overlay(image, saliency)))
        yield http_answer(model, path, answer) | {"explanation": str(file)}
