"""Python functions that tf.data calls from threads of its own, and the end of the process."""

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

_last_call = float("-inf")  # time.monotonic() of the last call's begin or end
_ending = False


def until_exit(function: Callable[P, T]) -> Callable[P, T]:
    """`function`, which fails once the process is about to end.

    A thread that is inside Python when the interpreter is taken down never returns, and an iterator of tf.data
    waits for its threads: the process would hang. So calls fail from then on, tf.data fills its buffers with the
    failures, which nobody takes any more, and its threads come to rest before the interpreter goes.
    """

    @functools.wraps(function)
    def guarded(*args: P.args, **kwargs: P.kwargs) -> T:
        _note_call()
        try:
            if _ending:
                raise RuntimeError("the process is ending")
            return function(*args, **kwargs)
        finally:
            _note_call()

    return guarded


def _note_call() -> None:
    global _last_call  # noqa: PLW0603 - one per process, as the interpreter is
    _last_call = time.monotonic()


@atexit.register
def _wait_for_rest() -> None:
    global _ending  # noqa: PLW0603
    _ending = True
    start = time.monotonic()
    while time.monotonic() - _last_call < QUIET_S and time.monotonic() - start < MAX_WAIT_S:
        time.sleep(QUIET_S / 10)
