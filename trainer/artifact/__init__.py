"""The artifact that `fit` makes and the server loads: its files, the engine that runs it, and the model store."""

from trainer.artifact.spec import (
    MODEL_FILE,
    SAVED_MODEL,
    SPEC_FILE,
    Artifact,
    load,
    read_spec,
    write_spec,
)

__all__ = [
    "MODEL_FILE",
    "SAVED_MODEL",
    "SPEC_FILE",
    "Artifact",
    "load",
    "read_spec",
    "write_spec",
]
