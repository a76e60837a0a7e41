"""The server's log: lines for people, or one JSON object a line for programs."""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime
from types import TracebackType

HANDLER = "tracehandler"  # BentoML's name for what writes all that its servers log
# They have that handler themselves and hand their lines up to it, too: BentoML would write each twice.
WRITTEN_TWICE = ("uvicorn.error", "circus")
# Of a record about an answer that is an error, whose message is the error's.
ANSWER_FIELDS = ("path", "status", "code", "ms")


def set_up(*, as_json: bool) -> None:
    """Give the lines of a server their form. In a command that does not serve nothing changes."""
    handlers = [handler for handler in logging.getLogger().handlers if handler.name == HANDLER]
    if not handlers:
        return
    handlers[0].setFormatter(JsonLines() if as_json else Lines())
    for name in WRITTEN_TWICE:
        logging.getLogger(name).propagate = False
    if as_json:
        logging.captureWarnings(True)
        sys.excepthook = _log_uncaught


class Lines(logging.Formatter):
    """`10:24:01 WARNING /predict 415 unsupported_type 0.4 ms: not an image of a supported type`"""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(message)s", datefmt="%H:%M:%S")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  # overrides
        if hasattr(record, "status"):
            path, status, code, ms = (getattr(record, field) for field in ANSWER_FIELDS)
            # A client's path and header may have got into it: it stays one line, and tells a terminal nothing.
            record.message = printable(f"{path} {status} {code} {ms} ms: {record.message}")
        return super().formatMessage(record)


class JsonLines(logging.Formatter):
    """`{"time": …, "level": …, "logger": …, "message": …}`; of an error that was answered `path`, `status`, `code` and
    `ms`, and of an exception its `traceback`.
    """

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        line |= {field: getattr(record, field) for field in ANSWER_FIELDS if hasattr(record, field)}
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line)


def printable(text: str) -> str:
    """Text on one line: what is not printable as Python escapes it."""
    if text.isprintable():
        return text
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text)


def _log_uncaught(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
    logging.getLogger().critical("an uncaught exception", exc_info=(kind, error, traceback))
