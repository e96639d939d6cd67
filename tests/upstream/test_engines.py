"""The engines side by side."""

from __future__ import annotations

import pytest

from inferxgate.errors import INTERNAL_ERROR, GatewayError
from inferxgate.upstream.echo import EchoUpstream
from inferxgate.upstream.engines import Engines
from inferxgate.upstream.http import HttpUpstream
from inferxgate.upstream.protocol import HttpRequest
from tests.support.provider import FakeProvider

BODY = b'{"messages":[{"role":"user","content":"hi"}]}'


async def test_sends_each_scheme_its_way() -> None:
    over_http = HttpUpstream()
    engines = Engines({"http": over_http, "https": over_http, "echo": EchoUpstream()})
    with FakeProvider() as provider:
        echoed = await engines.send(HttpRequest("POST", "echo://local/v1/chat/completions", {}, BODY))
        sent = await engines.send(HttpRequest("POST", f"{provider.base_url}/chat/completions", {}, BODY))
        assert b'"hi"' in await echoed.read(limit=10_000)
        assert b"Hello" in await sent.read(limit=10_000)
        await engines.close()


async def test_an_unknown_scheme_is_said_without_the_url() -> None:
    with pytest.raises(GatewayError) as caught:
        await Engines({}).send(HttpRequest("POST", "ftp://host/secret?key=1", {}, b""))
    assert caught.value.kind is INTERNAL_ERROR
    assert "secret" not in caught.value.message
