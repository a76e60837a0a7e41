"""HTTP: routes and access control, and every error as JSON with a code.

`ApiMiddleware` stands around BentoML's application and answers the contract's endpoints itself: BentoML parses a body
by the Content-Type that a client claims, reads it without a limit, and builds JSON schemas for each request. BentoML's
own paths (/livez, /readyz, its pages) are passed on; only their errors are made JSON.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple, cast

from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from trainer.errors import ImageError
from trainer.serving.log import TRACE
from trainer.serving.memory import MemoryBudget
from trainer.serving.open_inference_paths import is_open_inference, route_of
from trainer.serving.request import Request
from trainer.serving.responses import (
    CHALLENGE,
    STATUS,
    ApiError,
    Headers,
    Response,
    error_response,
    in_protocol,
)
from trainer.serving.schemas import ErrorCode
from trainer.serving.tokens import Tokens

log = logging.getLogger("bentoml.trainer")  # below BentoML's own logger, which is set up when it serves

# For BentoML's pages, which ask a browser to fetch a script of Google's (its Tag Manager).
BENTOML_POLICY = b"default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' blob: data:"
OPEN_PATHS = ("/livez", "/readyz")  # health checks send no token
PAGE_PATH = "/ui"
TRACE_PARENT = re.compile("[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")  # W3C Trace Context
Handler = Callable[[Request], Awaitable[Response]]
Routes = Mapping[str, tuple[str, Handler]]  # path, or what `route_of` makes of it → its method and its handler


class Backend(NamedTuple):
    """Everything that `ApiMiddleware` needs of the service."""

    routes: Routes
    on_request: Callable[[str, int, float], None]  # endpoint, status, seconds
    memory: MemoryBudget  # charged with the bodies
    tokens: Tokens | None  # None: no token is needed


class ApiMiddleware:
    """ASGI middleware: checks the token, answers the routes, passes other paths on, counts every request.

    `backend` is called for each request: the service does not exist yet when middleware is declared.
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
        path = normalized(scope["path"])
        if path != scope["path"]:
            scope = {**scope, "path": path, "raw_path": path.encode()}
        route = route_of(path)
        refusal = tokens.refusal(scope["headers"]) if tokens and path not in OPEN_PATHS else None
        if route not in routes and not refusal:
            status = await self._pass_on(scope, receive, send, start)
            on_request("other", status, time.perf_counter() - start)
            return
        request = Request(scope, receive, memory)
        try:
            if refusal and path != PAGE_PATH:
                response = error_response("unauthorized", refusal)
            else:
                method, handler = routes[route]
                response = await _respond(request, handler, scope["method"], method)
            if refusal and response.status == 200:  # a browser shows the page all the same, and it asks for a token
                response = replace(response, status=STATUS["unauthorized"], headers=(*response.headers, CHALLENGE))
        except ConnectionResetError:  # the client has gone
            return
        finally:
            request.release()
        await _send(send, path, response)
        seconds = time.perf_counter() - start
        on_request(route if route in routes else "other", response.status, seconds)
        _log_error(scope, response, seconds)

    async def _pass_on(self, scope: Scope, receive: Receive, send: Send, start: float) -> int:
        """Let BentoML answer, with its errors as JSON; return the status."""
        status = 0

        async def replace_errors(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                if status >= 400:
                    allow = tuple(pair for pair in message.get("headers", ()) if pair[0].lower() == b"allow")
                    response = _framework_error(status, scope["path"], allow)
                    await _send(send, scope["path"], response)
                    _log_error(scope, response, time.perf_counter() - start)
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
                await _send(send, scope["path"], _framework_error(status, scope["path"], ()))
        return status


def normalized(path: str) -> str:
    """The path with one slash at its start and none at its end: others do not matter."""
    return f"/{path.strip('/')}"


def allow_origins(app: ASGIApp, origins: Sequence[str]) -> ASGIApp:
    """CORS: browsers let pages of these origins (`*` for all) read the responses of `app`, errors included.

    Preflight requests (OPTIONS) are answered here; they never carry a token.
    """
    return CORSMiddleware(
        app,
        allow_origins=origins,
        allow_methods=("GET", "HEAD", "POST"),
        allow_headers=("Authorization", "Content-Encoding", "Content-Type", "Inference-Header-Content-Length"),
        expose_headers=("Inference-Header-Content-Length", "Retry-After"),
        allow_private_network=True,
    )


class OutermostMiddleware:
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
            # Starlette's redirects name the host that the server sees: behind a proxy they lead elsewhere.
            application.router.redirect_slashes = False
            application.middleware_stack = self._wrap(application.middleware_stack)
        await self._app(scope, receive, send)


async def _respond(request: Request, handler: Handler, method: str, allowed: str) -> Response:
    if method != allowed and (method, allowed) != ("HEAD", "GET"):
        allow = b"GET, HEAD" if allowed == "GET" else allowed.encode()
        return error_response("method_not_allowed", f"{method} is not allowed here: {allowed} is", ((b"allow", allow),))
    try:
        return await handler(request)
    except (ApiError, ImageError) as error:
        return error_response(cast(ErrorCode, error.code), str(error))
    except TimeoutError:
        return error_response("deadline_exceeded", "the answer was not ready within the deadline")
    except ConnectionResetError:
        raise
    except Exception:
        log.exception("an internal error")
        return _internal_error()


def _framework_error(status: int, path: str, headers: Headers) -> Response:
    if status == 404:
        return error_response("not_found", f"{path!r} is no address here; the page at / lists them")
    if status == 405:
        return error_response("method_not_allowed", "this method is not allowed here", headers)
    if status == 503:
        return error_response("not_ready", "the server is starting or stopping")
    return _internal_error()


def _internal_error() -> Response:
    return error_response("internal", "an internal error; the server's log says more")


def _log_error(scope: Scope, response: Response, seconds: float) -> None:
    """Log a response that is an error, with the trace that the request belongs to; others leave no line."""
    if not response.error:
        return
    level = logging.ERROR if response.status == STATUS["internal"] else logging.WARNING
    ms = round(1000 * seconds, 1)
    fields = {"path": scope["path"][:100], "status": response.status, "code": response.error["code"], "ms": ms}
    trace = next((value for name, value in scope["headers"] if name == TRACE.encode()), b"").decode("latin-1")
    if TRACE_PARENT.fullmatch(trace):
        fields[TRACE] = trace
    log.log(level, "%s", response.error["message"], extra=fields)


async def _send(send: Send, path: str, response: Response) -> None:
    if is_open_inference(path):
        response = in_protocol(response)
    headers = [
        (b"content-type", response.media_type.encode()),
        (b"content-length", str(len(response.body)).encode()),
        *response.headers,
    ]
    await send({"type": "http.response.start", "status": response.status, "headers": headers})
    await send({"type": "http.response.body", "body": response.body})
