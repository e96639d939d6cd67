"""The way to a gateway at another address, over HTTP."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import httpx

from inferxgate.canonical.chat import Chunk
from inferxgate.cli.failures import CommandFailed, WrongUsage
from inferxgate.dialects import openai_chat
from inferxgate.framing.sse import SSEDecoder, SSEEvent

_CONNECT_SECONDS = 10.0
_SILENCE_SECONDS = 660.0
"""Longer than a gateway waits for a provider's whole answer, so that its own message comes first."""


@asynccontextmanager
async def open_remote(url: str, key: str | None) -> AsyncIterator[Remote]:
    """The gateway at ``url``, with or without ``/v1`` at its end. Raises ``WrongUsage``."""
    address = _address(url)
    headers = {"accept": "application/json, text/event-stream"}
    if key:
        if not (key.isascii() and key.isprintable()):
            raise WrongUsage("The API key has characters that no key has; check --key or INFERXGATE_API_KEY")
        headers["authorization"] = f"Bearer {key}"
    timeout = httpx.Timeout(_SILENCE_SECONDS, connect=_CONNECT_SECONDS)
    async with httpx.AsyncClient(headers=headers, timeout=timeout) as client:
        yield Remote(client, address, has_key=bool(key))


def _address(url: str) -> httpx.URL:
    base = url.rstrip("/")
    try:
        address = httpx.URL(f"{base}{'' if base.endswith('/v1') else '/v1'}/chat/completions")
    except httpx.InvalidURL as error:
        raise WrongUsage(f"'{url}' is not an address: {error}") from error
    if address.scheme not in {"http", "https"} or not address.host:
        raise WrongUsage(f"'{url}' is not an address such as http://localhost:3000")
    return address


class Remote:
    """Asks a gateway over HTTP."""

    def __init__(self, client: httpx.AsyncClient, address: httpx.URL, *, has_key: bool) -> None:
        self._client = client
        self._address = address
        self._has_key = has_key

    async def whole(self, body: Mapping[str, Any]) -> tuple[Mapping[str, Any], tuple[Chunk, ...]]:
        """The completion as JSON, and what it says."""
        async with self._send({**body, "stream": False}) as response:
            return openai_chat.parse_response(await response.aread())

    async def stream(self, body: Mapping[str, Any]) -> AsyncGenerator[Chunk, None]:
        """The completion as it comes."""
        decoder, parser = SSEDecoder(), openai_chat.StreamParser()
        async with self._send({**body, "stream": True}) as response:
            async for data in response.aiter_bytes():
                for event in decoder.feed(data):
                    for chunk in _read(parser, event):
                        yield chunk
            for event in decoder.flush():
                for chunk in _read(parser, event):
                    yield chunk
        if not parser.done:
            raise CommandFailed("The answer broke off before its end; try again")

    @asynccontextmanager
    async def _send(self, body: Mapping[str, Any]) -> AsyncIterator[httpx.Response]:
        """A response with status 200."""
        try:
            async with self._client.stream("POST", self._address, json=body) as response:
                if response.status_code != httpx.codes.OK:
                    await response.aread()
                    raise self._refused(response)
                yield response
        except httpx.ConnectError as error:
            raise CommandFailed(f"Cannot reach {self._where}: {_advice(error)}") from error
        except httpx.TimeoutException as error:
            raise CommandFailed(f"{self._where} does not answer in time; try again later") from error
        except httpx.TransportError as error:
            reason = (str(error) or type(error).__name__).rstrip(".")
            tls = "; if it speaks TLS, write https:// in --url" if self._address.scheme == "http" else ""
            raise CommandFailed(f"The connection to {self._where} failed: {reason}{tls}") from error

    @property
    def _where(self) -> str:
        return f"{self._address.scheme}://{self._address.netloc.decode('ascii')}"

    def _refused(self, response: httpx.Response) -> CommandFailed:
        if response.status_code == httpx.codes.UNAUTHORIZED and not self._has_key:
            return CommandFailed(f"{self._where} wants an API key; give one with --key or INFERXGATE_API_KEY")
        message = _message(response.content) or f"{self._where} answered with status {response.status_code}"
        if response.status_code == httpx.codes.UNAUTHORIZED:
            message = f"{message.rstrip('.')}; check --key or INFERXGATE_API_KEY"
        return CommandFailed(message)


def _advice(error: httpx.ConnectError) -> str:
    """Why there was no connection, and what to do about it."""
    reason = str(error)
    if "CERTIFICATE_VERIFY_FAILED" in reason:
        found = re.search(r"certificate verify failed: ([^(]*[^( ])", reason)
        why = f" ({found[1]})" if found else ""
        return f"its certificate is not trusted{why}; name the file of its authority, in PEM, in SSL_CERT_FILE"
    if "[SSL" in reason:
        return f"{reason}; if it speaks no TLS, write http:// in --url"
    return f"{reason}; is the gateway running there?"


def _read(parser: openai_chat.StreamParser, event: SSEEvent) -> tuple[Chunk, ...]:
    message = _message(event.data)
    if message is not None:
        raise CommandFailed(message)
    read = parser.feed(event)
    return read.chunks if read is not None else ()


def _message(data: bytes) -> str | None:
    """The message of an error in the gateway's form, or None where it is none."""
    try:
        body = json.loads(data)
    except ValueError:
        return None
    error = body.get("error") if isinstance(body, dict) else None
    message = error.get("message") if isinstance(error, dict) else None
    return message if isinstance(message, str) else None
