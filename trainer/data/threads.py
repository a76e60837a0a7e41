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


class ExitGuard:
    """Makes the calls of wrapped functions fail once the process is about to exit, and waits until none is running.

    A thread inside Python never returns when the interpreter shuts down, and a tf.data iterator waits for its threads:
    the process would hang. With failing calls, tf.data fills its buffers with errors, which nobody reads, and its
    threads stop before the interpreter does.
    """

    def __init__(self) -> None:
        self._exiting = False
        self._last_call = float("-inf")  # time.monotonic() at the start or end of the last call

    def wrap(self, function: Callable[P, T]) -> Callable[P, T]:
        """Same function, but RuntimeError once `exit` has begun."""

        @functools.wraps(function)
        def guarded(*args: P.args, **kwargs: P.kwargs) -> T:
            self._last_call = time.monotonic()
            try:
                if self._exiting:
                    raise RuntimeError("the process is exiting")
                return function(*args, **kwargs)
            finally:
                self._last_call = time.monotonic()

        return guarded

    def exit(self) -> None:
        """Fail all further calls, and return when there was none for QUIET_S, at the latest after MAX_WAIT_S."""
        self._exiting = True
        start = time.monotonic()
        while time.monotonic() - self._last_call < QUIET_S and time.monotonic() - start < MAX_WAIT_S:
            time.sleep(QUIET_S / 10)


_guard = ExitGuard()
atexit.register(_guard.exit)
until_exit = _guard.wrap
