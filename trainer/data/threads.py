"""Guard for Python functions that tf.data calls from its own threads: the process must not hang when it exits."""

from __future__ import annotations

import atexit
import functools
import time
from collections.abc import Callable
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

QUIET_S = 0.1
MAX_WAIT_S = 5.0

_last_call = float("-inf")  # time.monotonic() of the last call's start or end
_exiting = False


def until_exit(function: Callable[P, T]) -> Callable[P, T]:
    """Wrap `function` so that its calls fail once the process is about to exit.

    A thread inside Python never returns when the interpreter shuts down, and a tf.data iterator waits for its threads:
    the process would hang. With failing calls, tf.data fills its buffers with errors, which nobody reads, and its
    threads stop before the interpreter does.
    """

    @functools.wraps(function)
    def guarded(*args: P.args, **kwargs: P.kwargs) -> T:
        _note_call()
        try:
            if _exiting:
                raise RuntimeError("the process is exiting")
            return function(*args, **kwargs)
        finally:
            _note_call()

    return guarded


def _note_call() -> None:
    global _last_call  # noqa: PLW0603 - one per process, like the interpreter
    _last_call = time.monotonic()


@atexit.register
def _wait_for_threads() -> None:
    global _exiting  # noqa: PLW0603
    _exiting = True
    start = time.monotonic()
    while time.monotonic() - _last_call < QUIET_S and time.monotonic() - start < MAX_WAIT_S:
        time.sleep(QUIET_S / 10)
