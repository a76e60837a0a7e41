"""HTTP/1.1 on a connection: uvicorn's protocol, with corrections for clients that get no response or block others.

- An offer to upgrade (Java's own client makes one with every request: `Upgrade: h2c`) is ignored, as RFC 9110, 7.8
  allows. uvicorn's parser would read the body as another protocol's.
- A client that closes its side of the connection once its request is sent still gets the response, and one that has
  gone is noticed (`half_close`).
- A client that does not read its responses is disconnected (`unread`).
- A request that the application would refuse anyway may be refused by its head (`load_shedding`).
- A request's head has limits of time and size, and a connection has a limit of requests that wait for their turn.
  uvicorn has none. Heads are charged to the memory budget.
"""

from __future__ import annotations

import asyncio
import sys
from dataclasses import replace
from typing import Any, ClassVar, cast

import httptools
import uvicorn.config
from starlette.types import Scope
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from trainer.serving.half_close import ResponseProbe
from trainer.serving.load_shedding import LoadShedder
from trainer.serving.memory import MemoryBudget
from trainer.serving.open_inference_paths import is_open_inference
from trainer.serving.responses import error_response, in_protocol
from trainer.serving.schemas import ErrorCode
from trainer.serving.unread import UnreadTimer
from trainer.serving.upgrade_offer import head_without_offer

# From the connection, or a head's first byte, to the head's end; from an early response to the body's end.
HEAD_TIMEOUT_S = 30.0
MAX_HEAD_BYTES = 16 << 10  # URL and headers, trailers included; nginx and HAProxy accept as much or half
HEADER_OVERHEAD = 64  # of each header: objects that hold it
MAX_PIPELINED = 32  # requests that wait for the responses before theirs
LINGER_S = 2.0  # in which a refused client may read why, while it still sends


class RefusedRequest(Exception):
    """Raised in a callback of the parser."""

    def __init__(self, status: int, code: ErrorCode, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code


class HttpProtocol(HttpToolsProtocol):
    """A connection. One instance for each."""

    memory: ClassVar[MemoryBudget] = MemoryBudget(sys.maxsize)  # charged with heads
    shedder: ClassVar[LoadShedder | None] = None

    url = b""  # before the first request
    _head_timer: asyncio.TimerHandle | None = None
    _unread: UnreadTimer
    _head_bytes = 0  # of the current request, as the parser has reported them
    _earlier_head_bytes = 0  # of the requests before it whose responses are not complete
    _unreported_bytes = 0  # fed to the parser since its last callback
    _fed_bytes = 0  # to the parser for a head that is not complete, and perhaps what came before it
    _charged = 0
    _refused = False

    @classmethod
    def install(cls) -> None:
        """Make this class the default protocol of uvicorn servers in this process."""
        uvicorn.config.HTTP_PROTOCOLS["auto"] = f"{cls.__module__}:{cls.__qualname__}"

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)  # type: ignore[arg-type]
        self._unread = UnreadTimer(self.transport, self.loop)
        self._start_head_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_head_timer()
        self._unread.stop()
        self._give_back()
        super().connection_lost(exc)

    def eof_received(self) -> bool:  # type: ignore[override]  # asyncio allows it; uvicorn returns nothing
        """Keep the connection open while a complete request is being answered, and probe whether its client reads."""
        if self._refused or self.cycle is None or self.cycle.response_complete or self.cycle.more_body:
            return False
        self.cycle.keep_alive = False
        if not self.pipeline and not self.cycle.response_started:
            self.cycle.transport = cast(asyncio.Transport, ResponseProbe(self.transport, self.loop))
        return True

    def pause_writing(self) -> None:
        super().pause_writing()
        self._unread.start()

    def resume_writing(self) -> None:
        if not self.transport.is_closing():
            self._unread.stop()
        super().resume_writing()

    def timeout_keep_alive_handler(self) -> None:
        self._close()

    def data_received(self, data: bytes) -> None:
        self._unset_keepalive_if_required()
        for start in range(0, len(data), MAX_HEAD_BYTES):
            if self._refused:
                return
            self._feed(data[start : start + MAX_HEAD_BYTES])

    def _feed(self, data: bytes) -> None:
        """Parse at most MAX_HEAD_BYTES."""
        self._unreported_bytes += len(data)
        while data:
            try:
                self.parser.feed_data(data)
                break
            except httptools.HttpParserError as error:
                cause = error.__context__
                if not isinstance(cause, RefusedRequest):
                    self.logger.warning("Invalid HTTP request received.")
                    cause = RefusedRequest(400, "bad_request", "this is no valid HTTP/1.1 request")
                self._refuse(cause)
                return
            except httptools.HttpParserUpgrade as offer:
                if self.parser.get_method() == b"CONNECT":
                    self._refuse(RefusedRequest(400, "bad_request", "this is no proxy"))
                    return
                request = (
                    self.parser.get_method() + b" " + self.url + b" HTTP/" + self.parser.get_http_version().encode()
                )
                data = head_without_offer(request, self.headers) + data[offer.args[0] :]
                self.parser = httptools.HttpRequestParser(self)
                self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn has it
        try:
            self._limit(self._unreported_bytes)
            self._fed_bytes = self._fed_bytes + len(data) if self._head_timer else 0
            self._charge(max(self._head_bytes, self._fed_bytes))
        except RefusedRequest as refusal:
            self._refuse(refusal)

    def on_message_begin(self) -> None:
        if self._charged:
            self._earlier_head_bytes += self._head_bytes
        self._unreported_bytes = self._head_bytes = self._fed_bytes = 0
        if len(self.pipeline) >= MAX_PIPELINED:
            raise RefusedRequest(400, "bad_request", f"more than {MAX_PIPELINED} requests are pipelined")
        super().on_message_begin()
        if self._head_timer is None:
            self._start_head_timer()

    def on_url(self, url: bytes) -> None:
        self._count(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._count(len(name) + len(value) + HEADER_OVERHEAD)
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._unreported_bytes = 0
        self._stop_head_timer()
        if not self.parser.should_upgrade():
            super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._unreported_bytes = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._unreported_bytes = 0
        self._stop_head_timer()
        if not self.parser.should_upgrade():
            super().on_message_complete()

    def on_response_complete(self) -> None:
        if not self.pipeline:
            self._give_back()
        if self.cycle.response_complete and self.cycle.more_body and self._head_timer is None:
            self._start_head_timer()  # the rest of a body that is refused could come for ever, a byte at a time
        if self.transport.is_closing() and self.transport.get_write_buffer_size():
            self._unread.start()
        super().on_response_complete()

    def _count(self, size: int) -> None:
        self._unreported_bytes = 0
        self._head_bytes += size
        self._limit(0)

    def _limit(self, unreported: int) -> None:
        if self._head_bytes + unreported > MAX_HEAD_BYTES:
            message = f"the request's head is too large: at most {MAX_HEAD_BYTES >> 10} KiB are read"
            raise RefusedRequest(431, "too_large", message)

    def _charge(self, head_bytes: int) -> None:
        """Charge the heads to the memory budget, until all responses are complete."""
        size = self._earlier_head_bytes + head_bytes - self._charged
        if size > 0:
            if not self.memory.take(size):
                message = "the server has no memory for another request; try again later"
                raise RefusedRequest(503, "overloaded", message)
            self._charged += size

    def _give_back(self) -> None:
        self.memory.give_back(self._charged)
        self._charged = self._earlier_head_bytes = self._head_bytes = 0

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:  # private to uvicorn
        """Call the application, unless the request is refused by its head; its body is then dropped as it comes."""
        # With more to write than the client reads, or a connection that ends here, a response takes the usual way.
        response = None
        if self.shedder and cycle.keep_alive and not self.flow.write_paused:
            response = self.shedder.refusal(cast(Scope, cycle.scope))
        if response is None:
            super()._start_asgi_task(cycle, app)
            return
        cycle.response_started = cycle.response_complete = True
        self.transport.write(response.http)
        self.on_response_complete()

    def _refuse(self, refusal: RefusedRequest) -> None:
        """Send the error and end the connection; whatever still comes is dropped, so that the client can read it."""
        self._refused = True
        self._stop_head_timer()
        if self.transport.is_closing():
            return
        if self.cycle and not self.cycle.response_complete:  # an error would take the place of another response
            self._close()
            return
        response = error_response(refusal.code, str(refusal), ((b"connection", b"close"),))
        if is_open_inference(self.url.partition(b"?")[0].decode("latin-1")):
            response = in_protocol(response)
        self.transport.write(replace(response, status=refusal.status).http)
        self.transport.write_eof()
        self.loop.call_later(LINGER_S, self._close)

    def _start_head_timer(self) -> None:
        self._head_timer = self.loop.call_later(HEAD_TIMEOUT_S, self._close)

    def _stop_head_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _close(self) -> None:
        """Close the connection once its client has read everything, or does not read."""
        if not self.transport.is_closing():
            self.transport.close()
            self._unread.start()
