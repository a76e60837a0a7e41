"""The server's log: lines for people, or one JSON object a line for programs."""

from __future__ import annotations

import json
import logging
import sys
import warnings
from datetime import UTC, datetime
from types import TracebackType

from trainer.text import printable

HANDLER = "tracehandler"  # BentoML's name for the handler of its servers' log
# Loggers that have that handler and also pass records up to it: BentoML would write each line twice.
WRITTEN_TWICE = ("uvicorn.error", "circus")
# Attributes of a record about an error response; the record's message is the error's.
RESPONSE_FIELDS = ("path", "status", "code", "ms")
TRACE = "traceparent"  # one more, of a request that has this header


def configure_logging(*, as_json: bool) -> None:
    """Format the server's log. A command that does not serve is left as it is."""
    handlers = [handler for handler in logging.getLogger().handlers if handler.name == HANDLER]
    if not handlers:
        return
    handlers[0].setFormatter(JsonLines() if as_json else Lines())
    for name in WRITTEN_TWICE:
        logging.getLogger(name).propagate = False
    # Pillow warns of damaged metadata: clients could fill the log, and the memory that keeps what was warned of.
    warnings.filterwarnings("ignore", module=r"PIL\.")
    if as_json:
        logging.captureWarnings(True)
        sys.excepthook = _log_uncaught


class Lines(logging.Formatter):
    """`10:24:01 WARNING /predict 415 unsupported_type 0.4 ms: not an image of a supported type`"""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(message)s", datefmt="%H:%M:%S")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  # overrides
        if hasattr(record, "status"):
            path, status, code, ms = (getattr(record, field) for field in RESPONSE_FIELDS)
            # Path and message may hold text of a client: it must not forge a line or control a terminal.
            trace = f" {TRACE}={getattr(record, TRACE)}" if hasattr(record, TRACE) else ""
            record.message = printable(f"{path} {status} {code} {ms} ms: {record.message}{trace}")
        return super().formatMessage(record)


class JsonLines(logging.Formatter):
    """`{"time": …, "level": …, "logger": …, "message": …}`; with `path`, `status`, `code` and `ms` for an error
    response, `traceparent` if its request had one, and `traceback` for an exception.
    """

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        line |= {field: getattr(record, field) for field in (*RESPONSE_FIELDS, TRACE) if hasattr(record, field)}
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line)


def _log_uncaught(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
    logging.getLogger().critical("an uncaught exception", exc_info=(kind, error, traceback))
