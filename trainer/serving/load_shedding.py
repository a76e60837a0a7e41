"""Load shedding: while the server is overloaded, requests for the network are refused by their head alone.

The usual way to a refusal (a task, the body, its handler, a log line) takes time that the answers need. Whatever needs
that way still takes it, such as the refusal of a client without a token.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection

from starlette.types import Scope

from trainer.serving.open_inference_paths import is_open_inference, route_of
from trainer.serving.responses import Response, error_response, in_protocol
from trainer.serving.tokens import Tokens

log = logging.getLogger("bentoml.trainer")  # below BentoML's own logger, which is set up when it serves

MESSAGE = "too many images wait; try again later"
LOG_EVERY_S = 1.0
# A browser's pages want the headers of CORS; a client that waits to be asked for its body may never send it.
NOT_HERE = frozenset((b"origin", b"expect"))


class LoadShedder:
    """Refuses requests of one worker. Call it only from the event loop's thread."""

    def __init__(
        self,
        overloaded: Callable[[int], bool],
        routes: Collection[str],
        tokens: Tokens | None,
        on_request: Callable[[str, int, float], None],
    ) -> None:
        """`overloaded`: whether an image would be refused that comes after so many others that are not counted yet;
        `routes`: those whose handlers need the network; `on_request`: as `Backend` has it.
        """
        self._overloaded = overloaded
        self._routes = routes
        self._tokens = tokens
        self._on_request = on_request
        self._refusal = error_response("overloaded", MESSAGE)
        self._protocol_refusal = in_protocol(self._refusal)
        self._begun = 0  # requests since the event loop ran the tasks of those before
        self._unlogged = 0

    def refusal(self, scope: Scope) -> Response | None:
        """The response to a request of which only the head is known; None for one that has to be handled."""
        path, headers = scope["path"], scope["headers"]
        if scope["method"] != "POST" or (route := route_of(path)) not in self._routes:
            return None
        if not self._overloaded(self._begun):
            if not self._begun:
                asyncio.get_running_loop().call_soon(self._end_of_round)
            self._begun += 1
            return None
        if not NOT_HERE.isdisjoint(name for name, _ in headers) or (self._tokens and self._tokens.refusal(headers)):
            return None
        self._on_request(route, self._refusal.status, 0.0)
        if not self._unlogged:
            asyncio.get_running_loop().call_later(LOG_EVERY_S, self._log, path)
        self._unlogged += 1
        return self._protocol_refusal if is_open_inference(path) else self._refusal

    def _end_of_round(self) -> None:
        self._begun = 0

    def _log(self, path: str) -> None:
        """One line for all refusals of a second."""
        assert self._refusal.error
        fields = {"path": path[:100], "status": self._refusal.status, "code": self._refusal.error["code"], "ms": 0.0}
        log.warning("%s (%d such requests in a second)", MESSAGE, self._unlogged, extra=fields)
        self._unlogged = 0
