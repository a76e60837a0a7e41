from __future__ import annotations

import os
import random
import socket
from collections.abc import Generator, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import faulty_images
import pytest
import schedule

if TYPE_CHECKING:
    from server import Server
    from xdist.remote import Producer

    from trainer.serving.metrics import Metrics


EVERY_FAULT = "all"


def pytest_addoption(parser: pytest.Parser, pluginmanager: pytest.PytestPluginManager) -> None:
    """Accept the options of pyproject.toml without pytest-xdist, too."""
    if not pluginmanager.hasplugin("xdist"):
        for name in ("--numprocesses", "--maxprocesses"):
            parser.addoption(name, help="has no effect without pytest-xdist")
    parser.addoption("--faults", default="1", metavar="SEED", help=f"draws faults; {EVERY_FAULT}: tries every one")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int | None:
    """Run a single file in this process; None: a process for each processor."""
    return 0 if len(config.args) == 1 and ".py" in config.args[0] else None


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> schedule.Scheduler:
    """Distribute the tests as `schedule` describes."""
    return schedule.Scheduler(config, log)


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """Name bytes after their argument: compressed ones hold the time, but every process has to make the same ids."""
    return argname if isinstance(val, bytes) else None


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Put the longest tests first; those that try every fault have no time limit."""
    schedule.longest_first(items)
    if config.getoption("faults") == EVERY_FAULT:
        for item in items:
            if schedule.unit_of(item.nodeid) == "faults":
                item.add_marker(pytest.mark.timeout(0))


@pytest.hookimpl(wrapper=True, tryfirst=True)  # outside of the time limit: waiting does not count
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Let a test with the marker `alone` run while no other process runs one."""
    with schedule.turn(item.config, alone=item.get_closest_marker("alone") is not None):
        return (yield)


@pytest.fixture(autouse=True)
def _own_homes(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test reads or writes the user's model store, cache or W&B folders."""
    home: Path = tmp_path_factory.mktemp("home")
    for variable in ("BENTOML_HOME", "WANDB_DIR", "WANDB_CACHE_DIR", "WANDB_CONFIG_DIR", "WANDB_DATA_DIR"):
        monkeypatch.setenv(variable, str(home / variable.lower()))
    monkeypatch.setenv("TRAINER_CACHE_DIR", str(home / "cache"))
    monkeypatch.setenv("BENTOML_DO_NOT_TRACK", "True")
    # Starting W&B takes two seconds of CPU; the tests of it set another mode.
    monkeypatch.setenv("WANDB_MODE", "disabled")
    for variable in ("WANDB_API_KEY", "WANDB_RUN_ID", "WANDB_BASE_URL", "TFDS_DATA_DIR", "TF_CONFIG"):
        monkeypatch.delenv(variable, raising=False)
    for variable in [name for name in os.environ if name.startswith("OTEL_")]:
        monkeypatch.delenv(variable)


@pytest.fixture
def in_tmp_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The test runs in a folder of its own."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def sample(pytestconfig: pytest.Config) -> random.Random | None:
    """Source of the faults that a test draws; None: it tries every one."""
    seed = pytestconfig.getoption("faults")
    print(f"--faults={seed}")  # shown where the test fails
    return None if seed == EVERY_FAULT else random.Random(seed)


@pytest.fixture
def unused_ports() -> list[int]:
    """Four free TCP ports of the loopback interface."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(4)]
        for item in sockets:
            item.bind(("127.0.0.1", 0))
        return [int(item.getsockname()[1]) for item in sockets]


@pytest.fixture(scope="session")
def metrics() -> Metrics:
    """The metrics of a server in this process, which can have them only once."""
    from trainer.serving.metrics import Metrics

    return Metrics("tiny:1", None)


@pytest.fixture(scope="session")
def tiny_artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real artifact of a small untrained network. Read only: copy it to change it."""
    from tiny_model import export_tiny_model

    return export_tiny_model(tmp_path_factory.mktemp("tiny") / "export")


@pytest.fixture(scope="session")
def tiny_server(tiny_artifact: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server of the tiny model for all tests that leave it as it is. Its drain file is `drain` beside its log."""
    from server import serving

    home = tmp_path_factory.mktemp("tiny_server")
    with serving(tiny_artifact, home, TRAINER_DRAIN_FILE=str(home / "drain")) as server:
        yield server


@pytest.fixture(scope="session")
def infinite_artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An artifact whose outputs are finite for a black image only."""
    from tiny_model import export_tiny_model

    return export_tiny_model(tmp_path_factory.mktemp("infinite") / "export", pixel_scale=1, logit_scale=1e38)


@pytest.fixture(scope="session")
def faulty_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of images with every fault that the data checks find. Read only."""
    root = tmp_path_factory.mktemp("faulty") / "digits"
    faulty_images.draw_digits(root)
    faulty_images.add_faults(root)
    return root


@pytest.fixture(scope="session")
def inspected(faulty_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> faulty_images.Inspected:
    """The faulty folder, inspected. Read only."""
    home = tmp_path_factory.mktemp("inspected")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRAINER_CACHE_DIR", str(home / "cache"))
        return faulty_images.inspect(faulty_folder, home)
