"""Additions to BentoML's supervisor, the process that starts the workers.

BentoML restarts a worker that cannot start again and again, for ever. Here, a worker without its model signals the
supervisor, which checks the model itself, logs once what is wrong, and ends with all workers.
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


def stop_if_model_missing(find_model: Callable[[], object]) -> None:
    """End the server, from the supervisor, when a worker reports a missing model and `find_model` raises here, too."""
    missing = False

    def on_signal(*_: object) -> None:
        nonlocal missing
        if missing:
            return
        try:
            find_model()
        except (InputError, ArtifactError) as error:
            missing = True
            log.error("%s; the server ends", error)
            os.kill(os.getpid(), signal.SIGTERM)  # BentoML's own way to stop all workers, with exit code 0

    signal.signal(signal.SIGUSR2, on_signal)
    atexit.register(lambda: os._exit(EXIT_CODE) if missing else None)
    os.environ[SUPERVISOR] = str(os.getpid())


def log_all_addresses() -> None:
    """Make the supervisor log 0.0.0.0, and not "localhost", for a server that listens on every address."""

    def replace_localhost(record: logging.LogRecord) -> bool:
        if isinstance(record.args, tuple):
            record.args = tuple("0.0.0.0" if value == "localhost" else value for value in record.args)
        return True

    logging.getLogger("bentoml.serve").addFilter(replace_localhost)


def report_missing_model() -> NoReturn:
    """Signal the supervisor that this worker has no model to serve, and end the worker."""
    supervisor = int(os.environ.get(SUPERVISOR, os.getpid()))
    if supervisor != os.getpid():
        os.kill(supervisor, signal.SIGUSR2)
    os._exit(EXIT_CODE)  # no traceback: the supervisor says why
