"""Fit, sweep, serve and ship image classifiers.

Public names: `load_model`, the classes of what it returns, and the errors; docs/python.md describes them.
"""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trainer.errors import ArtifactError, ImageError, InputError, TrainerError
    from trainer.predict.model import Model, Prediction, Score, load_model

__all__ = ["ArtifactError", "ImageError", "InputError", "Model", "Prediction", "Score", "TrainerError", "load_model"]

# Read by TensorFlow when it is imported. Without AVX512 it leaves oneDNN off by default, though training is
# about twice as fast with it; its start-up chatter would drown the lines that matter.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")


if not TYPE_CHECKING:  # a type checker would accept any name

    def __getattr__(name: str) -> Any:
        """Import a public name when it is first used: NumPy and Pillow are not for `trainer --help` to wait for."""
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        module = importlib.import_module("trainer.errors" if name.endswith("Error") else "trainer.predict.model")
        return getattr(module, name)


def __dir__() -> list[str]:
    """The public names, for completion."""
    return __all__
