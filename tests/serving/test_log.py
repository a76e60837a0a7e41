from __future__ import annotations

import json
import logging
import subprocess
import sys
import time

import pytest

from trainer.serving.log import JsonLines, Lines

ERROR_FIELDS = {"path": "/a\n\x9b2J", "status": 413, "code": "too_large", "ms": 3.1}


def record(message: str, **fields: object) -> logging.LogRecord:
    values = {"name": "bentoml.trainer", "levelname": "WARNING", "msg": message, "created": 1764238800.5}
    return logging.makeLogRecord(values | fields)


def test_a_line_of_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Lines, "converter", time.gmtime)
    assert Lines().format(record("ready")) == "10:20:00 WARNING ready"
    assert Lines().format(record("the body\r is too large", **ERROR_FIELDS)) == (
        r"10:20:00 WARNING /a\n\x9b2J 413 too_large 3.1 ms: the body\r is too large"
    )
    assert (
        Lines().format(record("late", **ERROR_FIELDS, traceparent="00-1-2-01")).endswith("late traceparent=00-1-2-01")
    )


def test_a_line_of_json() -> None:
    line = JsonLines().format(record("the body is too large", **ERROR_FIELDS))
    assert line.isascii()
    assert "\n" not in line
    assert json.loads(line) == {
        "time": "2025-11-27T10:20:00.500+00:00",
        "level": "WARNING",
        "logger": "bentoml.trainer",
        "message": "the body is too large",
        **ERROR_FIELDS,
    }


def test_every_record_is_logged_once_as_json() -> None:
    code = (
        "import logging, warnings\n"
        "from bentoml._internal.log import configure_server_logging\n"  # as `bentoml serve` and its workers do
        "from trainer.serving.log import configure_logging\n"
        "configure_server_logging()\n"
        "configure_logging(as_json=True)\n"
        "for name in ('bentoml.trainer', 'uvicorn.error', 'circus', 'other'):\n"
        "    logging.getLogger(name).warning('two\\nlines')\n"
        "warnings.warn('deprecated')\n"
        "raise ValueError('unforeseen')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (1, "")
    *plain, warning, uncaught = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line["logger"] for line in plain] == ["bentoml.trainer", "uvicorn.error", "circus", "other"]
    assert {line["message"] for line in plain} == {"two\nlines"}
    assert (warning["logger"], "UserWarning: deprecated" in warning["message"]) == ("py.warnings", True)
    assert (uncaught["level"], uncaught["message"]) == ("CRITICAL", "an uncaught exception")
    assert uncaught["traceback"].endswith("ValueError: unforeseen")
