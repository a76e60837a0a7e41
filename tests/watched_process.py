"""Commands run in processes whose writes this process watches, and fails: see `system_calls`.

Each is forked from one server that has imported TensorFlow, which takes seconds, and has run nothing.
"""

from __future__ import annotations

import multiprocessing
import os
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from system_calls import Before, Call, Fault, watch_me, watched_calls

PRELOADED = ["tensorflow", "keras", "optuna", "matplotlib.backends.backend_agg", "trainer.cli", "trainer.fit"]
PRELOADED += ["trainer.data_checks.page", "trainer.predict.table", "trainer.predict.model", "trainer.sweep.sweep"]


class Ended(NamedTuple):
    """A process that has ended."""

    code: int  # negative: a signal's
    out: str
    err: str
    calls: list[Call]  # that write below the watched folder


def run(
    function: Callable[..., None],
    arguments: Sequence[Any],
    home: Path,
    fault: Fault | None = None,
    before: Before | None = None,
) -> Ended:
    """Call a function in a process of its own, in `home/work`, with store and cache in `home`.

    See `watched_calls` for `fault` and `before`.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    environment = os.environ | {"BENTOML_HOME": str(home / "store"), "TRAINER_CACHE_DIR": str(home / "cache")}
    streams = (out_of(home), home.with_name(f"{home.name}.err"))
    own, other = socket.socketpair()
    with own, other:
        setting = (other, environment, home / "work", streams)
        process = context.Process(target=_run_here, args=(*setting, function, tuple(arguments)))
        process.start()
        assert process.pid
        calls = watched_calls(own, process.pid, home, fault, before)
        process.join()
    assert process.exitcode is not None
    out, err = (stream.read_text(encoding="utf-8", errors="replace") for stream in streams)
    return Ended(process.exitcode, out, err, calls)


def out_of(home: Path) -> Path:
    """Stdout of what runs in `home`, so far."""
    return home.with_name(f"{home.name}.out")


def _run_here(
    channel: socket.socket,
    environment: Mapping[str, str],
    folder: Path,
    streams: Sequence[Path],
    function: Callable[..., None],
    arguments: Sequence[Any],
) -> None:
    os.setpgid(0, 0)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    for descriptor, stream in enumerate(streams, start=1):
        file = os.open(stream, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(file, descriptor)
        os.close(file)
    watch_me(channel)
    channel.close()
    function(*arguments)


def trainer(*arguments: str) -> None:
    """The command line; `--model tiny` is a network of one layer."""
    import keras
    from keras import layers

    from trainer.cli import main
    from trainer.config import Recipe
    from trainer.models import ARCHITECTURES, Architecture

    def build(input_shape: tuple[int, int, int], classes: int, **_: object) -> Any:
        images = keras.Input(input_shape, dtype="uint8")
        return keras.Model(images, layers.Dense(classes)(layers.Flatten()(layers.Rescaling(1 / 255)(images))))

    ARCHITECTURES["tiny"] = Architecture("tiny", build, Recipe(epochs=2, batch_size=32, learning_rate=1e-2))
    sys.argv = ["trainer", *arguments]
    main()
