from __future__ import annotations

import socket
from contextlib import ExitStack
from pathlib import Path

from server import BENTOML, serving

SOFT_LIMIT = 128


def test_more_connections_than_the_soft_limit_of_open_files(tiny_artifact: Path, tmp_path: Path) -> None:
    command = ("sh", "-c", f'ulimit -S -n {SOFT_LIMIT} && exec "$0" serve .  "$@"', str(BENTOML))
    with serving(tiny_artifact, tmp_path, command=command) as server, ExitStack() as idle:
        for _ in range(SOFT_LIMIT + 50):
            idle.enter_context(socket.create_connection(("127.0.0.1", server.port)))
        assert server.ask("GET", "/readyz").status == 200
