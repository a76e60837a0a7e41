from __future__ import annotations

import logging

import pytest

from trainer.serving.supervisor import log_all_addresses


def test_a_server_that_listens_on_every_address_does_not_say_localhost(caplog: pytest.LogCaptureFixture) -> None:
    log = logging.getLogger("bentoml.serve")
    try:
        log_all_addresses()
        with caplog.at_level(logging.INFO, "bentoml.serve"):
            for host in ("localhost", "127.0.0.1"):  # what BentoML calls 0.0.0.0, and itself
                log.info("listening on %s://%s:%d", "http", host, 3000)
    finally:
        log.filters.clear()
    assert caplog.messages == ["listening on http://0.0.0.0:3000", "listening on http://127.0.0.1:3000"]
