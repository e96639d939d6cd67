"""The way to a gateway inside this process: the caller is the operator, without key or limits, and is recorded."""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import orjson

from inferxgate import errors
from inferxgate.accounts.callers import OPERATOR
from inferxgate.canonical.chat import Chunk, collect
from inferxgate.cli.failures import CommandFailed
from inferxgate.config import Loaded
from inferxgate.config_sources import dotted
from inferxgate.dialects import openai_chat
from inferxgate.dialects.openai_answers import build_response
from inferxgate.errors import GatewayError
from inferxgate.gateway.pipeline import Gateway, StreamReply, WholeReply
from inferxgate.ids import new_id
from inferxgate.runtime import open_runtime


@asynccontextmanager
async def open_inside(loaded: Loaded) -> AsyncIterator[Inside]:
    """A gateway with these settings. Raises ``StartError``."""
    # Such lines are for a server's log; here they would stand in the middle of the answer, or beside the failure.
    for name, level in (
        ("catalog", logging.ERROR),
        ("gateway.pipeline", logging.ERROR),
        ("gateway.selection", logging.CRITICAL),
    ):
        logging.getLogger(f"inferxgate.{name}").setLevel(level)
    async with open_runtime(loaded, serving=False) as runtime:
        yield Inside(runtime.gateway, loaded)


class Inside:
    """Asks a gateway of our own."""

    def __init__(self, gateway: Gateway, loaded: Loaded) -> None:
        self._gateway = gateway
        self._loaded = loaded

    async def whole(self, body: Mapping[str, Any]) -> tuple[Mapping[str, Any], tuple[Chunk, ...]]:
        """The completion as JSON, and what it says."""
        reply = await self._ask({**body, "stream": False})
        if not isinstance(reply, WholeReply):
            raise TypeError("the gateway streams what was asked for whole")
        if reply.data is not None:
            return orjson.loads(reply.data), reply.chunks
        now_s, model = int(time.time()), str(body["model"])
        answer = build_response(collect(reply.chunks), answer_id=new_id("chatcmpl-"), created_s=now_s, model=model)
        return answer, reply.chunks

    async def stream(self, body: Mapping[str, Any]) -> AsyncGenerator[Chunk, None]:
        """The completion as it comes."""
        reply = await self._ask({**body, "stream": True})
        if not isinstance(reply, StreamReply):
            raise TypeError("the gateway answers whole what was asked for as a stream")
        try:
            async for events in reply.events:
                for event in events:
                    for chunk in event.chunks:
                        yield chunk
        finally:
            await reply.close("client_closed")

    async def _ask(self, body: Mapping[str, Any]) -> WholeReply | StreamReply:
        try:
            return await self._gateway.chat(OPERATOR, openai_chat.parse_request(body), request_id=new_id("req_"))
        except GatewayError as error:
            refused = error.kind is errors.UPSTREAM_AUTH_ERROR and error.withheld is not None
            if not refused or error.target is None:
                raise
            provider = error.target.partition("/")[0]
            raise CommandFailed(
                f"The provider {provider} refused the credential (status {error.upstream_status}); "
                f"look at {_credential_of(provider, self._loaded)}. It said: {error.withheld}"
            ) from None


def _credential_of(provider: str, loaded: Loaded) -> str:
    """Where the credential of a provider is set, or could be."""
    several = loaded.settings.providers[provider].api_keys
    setting = dotted(("providers", provider, "api_keys" if several else "api_key"))
    origin, _, variable = loaded.origins[setting].partition(" ")
    match origin:
        case "environment":
            return f"the environment variable {variable} ({setting})"
        case "file":
            return f"{setting} in {loaded.path}"
        case _:
            return f"{setting}, which is not set"
