from __future__ import annotations

import socket
from contextlib import ExitStack
from pathlib import Path

import pytest
import spoiled


@pytest.fixture(autouse=True)
def _own_homes(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test reads or writes the user's model store, cache or W&B folders."""
    home: Path = tmp_path_factory.mktemp("home")
    for variable in ("BENTOML_HOME", "WANDB_DIR", "WANDB_CACHE_DIR", "WANDB_CONFIG_DIR", "WANDB_DATA_DIR"):
        monkeypatch.setenv(variable, str(home / variable.lower()))
    monkeypatch.setenv("TRAINER_CACHE_DIR", str(home / "cache"))
    monkeypatch.setenv("BENTOML_DO_NOT_TRACK", "True")
    monkeypatch.setenv("WANDB_MODE", "offline")
    for variable in ("WANDB_API_KEY", "WANDB_RUN_ID", "WANDB_BASE_URL", "TFDS_DATA_DIR", "TF_CONFIG"):
        monkeypatch.delenv(variable, raising=False)


@pytest.fixture
def unused_ports() -> list[int]:
    """Four TCP ports of the loopback interface that nothing listened on just now."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(4)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [int(one.getsockname()[1]) for one in sockets]


@pytest.fixture(scope="session")
def tiny_artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real artifact of a small untrained network. Read only: copy it to change it."""
    from tiny_model import export_tiny_model

    return export_tiny_model(tmp_path_factory.mktemp("tiny") / "export")


@pytest.fixture(scope="session")
def infinite_artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An artifact whose answers are finite for a black image and for no other."""
    from tiny_model import export_tiny_model

    return export_tiny_model(tmp_path_factory.mktemp("infinite") / "export", pixel_scale=1, logit_scale=1e38)


@pytest.fixture(scope="session")
def spoiled_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of pictures with every fault that the data doctor knows. Read only."""
    root = tmp_path_factory.mktemp("spoiled") / "digits"
    spoiled.drawn(root)
    spoiled.spoil(root)
    return root
