"""A running gateway in front of a fake provider, shared by the tests of a module."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.process import GatewayProcess, provider_section
from tests.support.provider import FakeProvider


@pytest.fixture(scope="module")
def provider() -> Iterator[FakeProvider]:
    with FakeProvider() as fake:
        yield fake


@pytest.fixture(scope="module")
def gateway(provider: FakeProvider, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    config = (
        "[routing]\nretries = 0\n"  # each scripted reply is for one request of a client
        + provider_section("openai", provider.base_url, models=["gpt-4o-mini"])
        + '[models.smart]\ntargets = ["openai/gpt-4o"]\n'
    )
    with GatewayProcess(tmp_path_factory.mktemp("gateway"), config=config) as process:
        yield process


@pytest.fixture(scope="module")
def key(gateway: GatewayProcess) -> str:
    """A key without a rate limit."""
    return gateway.create_key("--name", "tests", "--rpm", "0")
