"""Every exception that is meant for people.

TrainerError             exit code 1
├── InputError           2: the input or the configuration is wrong
│   └── ResponseError    2: a running server answers with an error
├── ArtifactError        2: a stored model is incomplete, altered, or cannot be run here
├── ImageError           2: an image that is refused; over HTTP 4xx with its `code`
├── RunError             3: the run failed and can be resumed
│   └── DivergedError    3: resuming would end the same
├── WorseError           4: a model is worse than the one that it is compared with, beyond chance
└── Interrupted          130 or 143: a signal ended the run after a checkpoint

A message is one line: what, where, and what was expected.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class TrainerError(Exception):
    """Base of all errors for people."""

    exit_code = 1


class InputError(TrainerError):
    """The input or the configuration is wrong."""

    exit_code = 2


class ResponseError(InputError):
    """An error that a running server answers with; `status` is HTTP's."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class ArtifactError(TrainerError):
    """An artifact that is incomplete, altered, of another format, or that cannot be run here."""

    exit_code = 2


class ImageError(TrainerError):
    """An image that is refused. The message holds no path.

    `code` is the HTTP contract's: empty_body, unsupported_type, too_many_pixels or corrupt_image.
    """

    exit_code = 2

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code

    def __reduce__(self) -> tuple[type[ImageError], tuple[str, str]]:
        return ImageError, (self.code, str(self))  # crosses process boundaries


class RunError(TrainerError):
    """The run failed and can be resumed."""

    exit_code = 3


class DivergedError(RunError):
    """The loss or the outputs are not finite: the resumed run would end the same."""


class WorseError(TrainerError):
    """A model is worse than the one that it is compared with, beyond chance."""

    exit_code = 4


class Interrupted(TrainerError):
    """A signal ended the run after a checkpoint: 130 for SIGINT, 143 for SIGTERM."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def did_you_mean(names: Iterable[str]) -> str:
    """The end of a message that suggests `names`; empty without any."""
    guesses = " or ".join(names)
    return f"; did you mean {guesses}?" if guesses else ""


def choose(key: str, value: str, allowed: Iterable[str]) -> None:
    """Raise InputError, with the nearest names, unless `value` is one of `allowed`."""
    names = sorted(allowed)
    if value not in names:
        near = did_you_mean(difflib.get_close_matches(value, names, n=3))
        raise InputError(f"{key}: {value!r} is not one of {', '.join(names)}{near}")
