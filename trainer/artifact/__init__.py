"""What `fit` hands to the server: a frozen network with its facts, the engine that runs it, and the store."""

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
