"""The wire side of the HTTP contract: who answers a request, and every error as JSON with a code.

`Contract` is ASGI middleware around BentoML's application. It answers the contract's endpoints itself: BentoML
parses a body by the Content-Type that a client claims, reads it without a limit, and builds JSON schemas for each
request. What belongs to BentoML (/livez, /readyz, its pages) goes through; only its errors are made JSON.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from trainer.errors import ImageError
from trainer.serving.answers import CHALLENGE, STATUS, Answer, ApiError, error_answer
from trainer.serving.memory import Memory
from trainer.serving.request import Request
from trainer.serving.tokens import Tokens

log = logging.getLogger("bentoml.trainer")  # below BentoML's own logger, which is set up when it serves

# For BentoML's pages, which ask a browser to fetch a script of Google's (its Tag Manager).
BENTOML_POLICY = b"default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' blob: data:"
# Who checks whether the server lives has no token.
OPEN_PATHS = ("/livez", "/readyz")
PAGE_PATH = "/ui"
Handler = Callable[[Request], Awaitable[Answer]]
Routes = Mapping[str, tuple[str, Handler]]  # path → its method and its handler


class Backend(NamedTuple):
    """What `Contract` answers with."""

    routes: Routes
    on_request: Callable[[str, int, float], None]  # endpoint, status, seconds
    memory: Memory  # that bodies may take
    tokens: Tokens | None  # None: everybody may call


class Contract:
    """ASGI middleware: answers the backend's routes for those who may call, passes all else on, counts every request.

    `backend` is asked when a request comes: the service does not exist when middleware is declared.
    """

    def __init__(self, app: ASGIApp, backend: Callable[[], Backend]) -> None:
        self._app = app
        self._backend = backend

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        start = time.perf_counter()
        routes, on_request, memory, tokens = self._backend()
        path = scope["path"]
        refusal = tokens.refusal(scope["headers"]) if tokens and path not in OPEN_PATHS else None
        if path not in routes and not refusal:
            status = await self._pass_on(scope, receive, send, start)
            on_request("other", status, time.perf_counter() - start)
            return
        request = Request(scope, receive, memory)
        try:
            if refusal and path != PAGE_PATH:
                answer = error_answer("unauthorized", refusal)
            else:
                method, handler = routes[path]
                answer = await _answer(request, handler, scope["method"], method)
            if refusal and answer.status == 200:  # the page: a browser shows it all the same, and it asks for a token
                answer = replace(answer, status=STATUS["unauthorized"], headers=(*answer.headers, CHALLENGE))
        except ConnectionResetError:  # nobody is left to answer
            return
        finally:
            request.release()
        await _send(send, answer)
        seconds = time.perf_counter() - start
        on_request(path if path in routes else "other", answer.status, seconds)
        _log_error(path, answer, seconds)

    async def _pass_on(self, scope: Scope, receive: Receive, send: Send, start: float) -> int:
        """Let BentoML answer; its error, if it is one, in the contract's form. The status."""
        status = 0

        async def replace_errors(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                if status >= 400:
                    allow = tuple(pair for pair in message.get("headers", ()) if pair[0].lower() == b"allow")
                    answer = _framework_error(status, scope["path"], allow)
                    await _send(send, answer)
                    _log_error(scope["path"], answer, time.perf_counter() - start)
                else:
                    message["headers"] = [*message.get("headers", ()), (b"content-security-policy", BENTOML_POLICY)]
            if status < 400:
                await send(message)

        try:
            await self._app(scope, receive, replace_errors)
        except Exception:
            log.exception("an error in BentoML's application")
            if not status:
                status = 500
                await _send(send, _framework_error(status, scope["path"], ()))
        return status


def allow_origins(app: ASGIApp, origins: Sequence[str]) -> ASGIApp:
    """ASGI middleware: browsers let pages of these origins, `*` for all, read the answers of `app`, errors included.

    It answers their questions in advance (OPTIONS), which never carry a token.
    """
    return CORSMiddleware(
        app,
        allow_origins=origins,
        allow_methods=("GET", "HEAD", "POST"),
        allow_headers=("Authorization", "Content-Type"),
        expose_headers=("Retry-After",),
        allow_private_network=True,
    )


class Outermost:
    """ASGI middleware that puts `wrap` around the whole Starlette application when that starts.

    BentoML places a service's middleware inside its own, where a timeout keeps a timer and its task for 60 s after
    each request: at a thousand a second, tens of megabytes and pauses of the garbage collector.
    """

    def __init__(self, app: ASGIApp, wrap: Callable[[ASGIApp], ASGIApp]) -> None:
        self._app = app
        self._wrap = wrap

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            application = scope["app"]
            application.middleware_stack = self._wrap(application.middleware_stack)
        await self._app(scope, receive, send)


async def _answer(request: Request, handler: Handler, asked: str, allowed: str) -> Answer:
    if asked != allowed and (asked, allowed) != ("HEAD", "GET"):
        allow = b"GET, HEAD" if allowed == "GET" else allowed.encode()
        return error_answer("method_not_allowed", f"{asked} is not allowed here: {allowed} is", ((b"allow", allow),))
    try:
        return await handler(request)
    except (ApiError, ImageError) as error:
        return error_answer(error.code, str(error))
    except TimeoutError:
        return error_answer("deadline_exceeded", "the answer was not ready within the deadline")
    except ConnectionResetError:
        raise
    except Exception:
        log.exception("an internal error")
        return error_answer("internal", "an internal error; the server's log says more")


def _framework_error(status: int, path: str, headers: tuple[tuple[bytes, bytes], ...]) -> Answer:
    if status == 404:
        return error_answer("not_found", f"{path!r} is no address here; the page at / lists them")
    if status == 405:
        return error_answer("method_not_allowed", "this method is not allowed here", headers)
    if status == 503:
        return error_answer("not_ready", "the server is starting or stopping")
    return error_answer("internal", "an internal error; the server's log says more")


def _log_error(path: str, answer: Answer, seconds: float) -> None:
    """A line for an answer that is an error; others leave none."""
    if not answer.error:
        return
    level = logging.ERROR if answer.status == STATUS["internal"] else logging.WARNING
    ms = round(1000 * seconds, 1)
    fields = {"path": path[:100], "status": answer.status, "code": answer.error["code"], "ms": ms}
    log.log(level, "%s", answer.error["message"], extra=fields)


async def _send(send: Send, answer: Answer) -> None:
    headers = [
        (b"content-type", answer.media_type.encode()),
        (b"content-length", str(len(answer.body)).encode()),
        *answer.headers,
    ]
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    await send({"type": "http.response.body", "body": answer.body})
