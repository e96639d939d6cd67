"""The engines side by side: each request goes to the one that knows its URL's scheme."""

from __future__ import annotations

from collections.abc import Mapping

from inferxgate.errors import INTERNAL_ERROR, GatewayError
from inferxgate.upstream.protocol import HttpRequest, HttpResponse, Upstream


class Engines(Upstream):
    """Picks an engine by the URL's scheme. One engine may stand for several schemes."""

    def __init__(self, engines: Mapping[str, Upstream]) -> None:
        self._engines = dict(engines)

    async def send(self, request: HttpRequest) -> HttpResponse:
        """Raises what the engine raises, and ``internal_error`` where no engine knows the scheme."""
        engine = self._engines.get(request.url.partition(":")[0].lower())
        if engine is None:
            raise GatewayError(INTERNAL_ERROR, "The provider's base URL has a scheme that this gateway does not speak.")
        return await engine.send(request)

    async def close(self) -> None:
        """Close every engine once."""
        for engine in {id(engine): engine for engine in self._engines.values()}.values():
            await engine.close()
