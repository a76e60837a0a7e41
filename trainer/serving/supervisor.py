"""What BentoML's supervisor, the process that starts the workers, does not do by itself.

An end for a server whose workers cannot start: they are started again and again, for ever. Such a worker tells the
supervisor, which looks itself, says once what is wrong, and ends with the other workers.
"""

from __future__ import annotations

import atexit
import logging
import os
import signal
from collections.abc import Callable
from typing import NoReturn

from trainer.errors import ArtifactError, InputError

log = logging.getLogger("bentoml.trainer")

SUPERVISOR = "TRAINER_SUPERVISOR"  # its process id, for its workers
EXIT_CODE = InputError.exit_code


def end_without(find_model: Callable[[], object]) -> None:
    """In the supervisor: from now on a worker that gives up ends the server, if `find_model` raises here, too."""
    gone = False

    def on_signal(*_: object) -> None:
        nonlocal gone
        if gone:
            return
        try:
            find_model()
        except (InputError, ArtifactError) as error:
            gone = True
            log.error("%s; the server ends", error)
            os.kill(os.getpid(), signal.SIGTERM)  # BentoML's own way to stop all workers, with exit code 0

    signal.signal(signal.SIGUSR2, on_signal)
    atexit.register(lambda: os._exit(EXIT_CODE) if gone else None)
    os.environ[SUPERVISOR] = str(os.getpid())


def tell_all_addresses() -> None:
    """In the supervisor: where it listens on every address its log says so, and not "localhost"."""

    def mend(record: logging.LogRecord) -> bool:
        if isinstance(record.args, tuple):
            record.args = tuple("0.0.0.0" if value == "localhost" else value for value in record.args)
        return True

    logging.getLogger("bentoml.serve").addFilter(mend)


def give_up() -> NoReturn:
    """In a worker that has no model to serve."""
    supervisor = int(os.environ.get(SUPERVISOR, os.getpid()))
    if supervisor != os.getpid():
        os.kill(supervisor, signal.SIGUSR2)
    os._exit(EXIT_CODE)  # no traceback: the supervisor says why
