"""Server of a container image: `python -m trainer.serving BENTO [--host HOST] [--port PORT]`.

It runs the service of `bentoml serve` in one process. A supervisor would import all that its worker imports, half of
the cost of a start, and in a container it restarts no worker that has died: the container engine does.
"""

from __future__ import annotations

import argparse
import os
import signal
import socket
import sys

from trainer.serving.healthcheck import PORT_VARIABLES, server_address
from trainer.serving.start_throttle import start_throttle, stop_throttle

GRACEFUL_STOP_S = 5  # longer than a deadline: requests in flight are answered


def main() -> None:
    default_host, default_port = server_address([])
    parser = argparse.ArgumentParser(
        prog="python -m trainer.serving", description="Serve a Bento in one process.", allow_abbrev=False
    )
    parser.add_argument("bento", help="its folder")
    parser.add_argument("--host", default=default_host, help="default: BENTOML_HOST, else all addresses")
    parser.add_argument("--port", type=port, default=default_port, help="default: BENTOML_PORT, PORT, else 3000")
    parser.add_argument(
        "--start-share",
        type=share,
        default=os.environ.get("TRAINER_START_SHARE", "1"),
        help="of one CPU, until it is ready: the rest is for replicas that serve already (TRAINER_START_SHARE)",
    )
    options = parser.parse_args()
    if os.environ.get("TRAINER_WORKERS", "1") != "1":
        address = ("--host", options.host, "--port", str(options.port))
        graceful = ("--timeout-graceful-shutdown", str(GRACEFUL_STOP_S))
        os.execvp("bentoml", ["bentoml", "serve", options.bento, *address, *graceful])
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # process 1 ignores it by default
    start_throttle(options.start_share)

    import bentoml
    import uvicorn
    from bentoml._internal.log import configure_server_logging

    class Server(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            stop_throttle()

    configure_server_logging()
    service = bentoml.load(options.bento)
    service.inner.choose_model()
    config = uvicorn.Config(
        service.to_asgi(),
        host=options.host,
        port=options.port,
        log_config=None,
        server_header=False,
        timeout_graceful_shutdown=GRACEFUL_STOP_S,
    )
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # uvicorn raises it once more when all requests are answered
    Server(config).run()


def port(text: str) -> int:
    if not (text.isdecimal() and int(text) < 1 << 16):
        variables = " or ".join(PORT_VARIABLES)
        raise argparse.ArgumentTypeError(f"{text!r} is no port, from the option or {variables}: 0 to 65535 is expected")
    return int(text)


def share(text: str) -> float:
    value = float(text)
    if not 0 < value <= 1:
        raise ValueError
    return value


if __name__ == "__main__":
    main()
