"""The way out as an operator sets it up: headers, proxies, authorities, time limits, and clients that leave."""

from __future__ import annotations

import json
import socket
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.process import GatewayProcess, provider_section
from tests.support.provider import CLOSE, HANG, FakeProvider, Reply, Wait, head, json_reply, sse_body

ONCE = "[routing]\nretries = 0\n"
HELLO: dict[str, Any] = {"model": "gpt-4o", "messages": [{"role": "user", "content": "Hello"}]}
DELTA = {"choices": [{"index": 0, "delta": {"content": "Hel"}, "finish_reason": None}]}
END = {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
STREAM_HEAD = head(200, {"content-type": "text/event-stream", "connection": "close"})
FIRST_EVENT = b"".join(sse_body([DELTA]))


def json_head(length: int) -> bytes:
    return head(200, {"content-type": "application/json", "content-length": str(length)})


def ask(gateway: GatewayProcess, key: str, *, stream: bool = False, timeout: float = 30, **more: Any) -> httpx.Response:
    return httpx.post(
        gateway.base_url + "/chat/completions",
        headers={"authorization": f"Bearer {key}"},
        json={**HELLO, "stream": stream, **more},
        timeout=timeout,
    )


def last_record(gateway: GatewayProcess, *, of: int) -> dict[str, Any]:
    """The newest usage record, once there are ``of`` of them."""
    for _ in range(100):
        stats = json.loads(gateway.run("stats", "--json").stdout)
        if stats["totals"]["requests"] >= of:
            record: dict[str, Any] = stats["recent"][0]
            return record
        time.sleep(0.1)
    raise AssertionError(f"there were never {of} records")


def test_the_provider_sees_its_own_credential_and_the_extra_headers(tmp_path: Path) -> None:
    with FakeProvider() as provider:
        config = provider_section("openai", provider.base_url, api_key="${MY_KEY}")
        config += '[providers.openai.headers]\nOpenAI-Organization = "org-1"\nX-Team = "${TEAM}"\n'
        with GatewayProcess(tmp_path, config=config, environment={"MY_KEY": "sk-from-env", "TEAM": "blue"}) as gateway:
            key = gateway.create_key()
            assert ask(gateway, key).status_code == 200
            sent = provider.last
            assert sent.headers["authorization"] == "Bearer sk-from-env"
            assert sent.headers["openai-organization"] == "org-1"
            assert sent.headers["x-team"] == "blue"
            assert key not in str(sent.headers) + sent.body.decode()


def test_providers_own_environment_names_need_no_file(tmp_path: Path) -> None:
    with FakeProvider() as provider:
        environment = {"OPENAI_API_KEY": "sk-env-only", "OPENAI_BASE_URL": provider.base_url}
        with GatewayProcess(tmp_path, environment=environment) as gateway:
            assert ask(gateway, gateway.create_key()).status_code == 200
            assert provider.last.headers["authorization"] == "Bearer sk-env-only"


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("status", [401, 403])
def test_why_a_credential_was_refused_reaches_the_log_alone(tmp_path: Path, status: int, stream: bool) -> None:
    secret = "canary+key/0123456789"
    with FakeProvider() as provider:
        config = provider_section("openai", provider.base_url, api_key=secret)
        with GatewayProcess(tmp_path, config=config) as gateway:
            said = {"error": {"message": f"The key {secret} is of an archived\nproject." + " Sorry." * 1000}}
            escaped = json.dumps(said).replace("+", "\\u002b").replace("/", "\\/").encode()
            provider.reply_body(escaped, status=status)
            answer = ask(gateway, gateway.create_key(), stream=stream)
            assert (answer.status_code, answer.json()["error"]["code"]) == (502, "upstream_auth_error")
            assert "archived" not in answer.text
            assert gateway.stop() == 0
            [line] = [line for line in gateway.lines if "archived" in line]
            assert f"request {answer.headers['x-request-id']} to openai/gpt-4o: The provider " in line
            assert "The key **** is of an archived" in line
            assert len(line) < 1500
            assert secret not in gateway.log


def test_a_refusal_that_is_no_json_is_logged_as_it_came(tmp_path: Path) -> None:
    with (
        FakeProvider() as provider,
        GatewayProcess(tmp_path, config=provider_section("openai", provider.base_url)) as own,
    ):
        provider.reply_body(b"<h1>Blocked by\r\n\x1b[31mthe firewall</h1>", status=403)
        assert ask(own, own.create_key()).status_code == 502
        assert own.stop() == 0
        assert "It said: <h1>Blocked by \\x1b[31mthe firewall</h1>\n" in own.log


LEAVING = {
    "before headers": Reply((HANG,)),
    "before the first event": Reply((STREAM_HEAD, HANG)),
    "within a stream": Reply((STREAM_HEAD + FIRST_EVENT, HANG)),
    "within a whole answer": Reply((json_head(999), b"{", HANG)),
}


@pytest.mark.parametrize("stage", LEAVING)
def test_a_client_that_leaves_ends_the_providers_request(tmp_path: Path, stage: str) -> None:
    with FakeProvider() as provider:
        config = provider_section("openai", provider.base_url)
        with GatewayProcess(tmp_path, config=config) as gateway:
            key = gateway.create_key()
            provider.reply(LEAVING[stage])
            body = json.dumps({**HELLO, "stream": "stream" in stage or "event" in stage}).encode()
            with socket.create_connection(("127.0.0.1", gateway.port)) as client:
                client.sendall(
                    b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
                    b"authorization: Bearer %b\r\ncontent-length: %d\r\n\r\n%b" % (key.encode(), len(body), body)
                )
                provider.wait_for_requests(1)
                if stage == "within a stream":
                    assert b"Hel" in client.recv(65536) + client.recv(65536)
                else:
                    time.sleep(0.2)
                left = time.monotonic()
            ended = provider.wait_closed_early(10)
            assert ended is not None
            assert time.monotonic() - left < 5, "the bound of the promise is a second; a slow machine gets more"
            record = last_record(gateway, of=1)
            assert record["status"] == "client_closed"
            assert record["usage_source"] == "estimated"
            assert record["http_status"] == (200 if stage == "within a stream" else 499)


@pytest.mark.parametrize(
    ("setting", "seconds", "stage", "stream"),
    [
        ("first_byte_timeout_seconds", 0.3, "headers", False),
        ("first_byte_timeout_seconds", 0.3, "headers", True),
        ("idle_timeout_seconds", 0.3, "events", True),
        ("timeout_seconds", 0.4, "headers", False),
    ],
)
def test_a_silent_provider_is_given_up(tmp_path: Path, setting: str, seconds: float, stage: str, stream: bool) -> None:
    with FakeProvider() as provider:
        config = ONCE + provider_section("openai", provider.base_url, **{setting: seconds})
        with GatewayProcess(tmp_path, config=config) as gateway:
            key = gateway.create_key()
            if stage == "headers":
                provider.reply(HANG)
            else:
                provider.reply(Reply((STREAM_HEAD + FIRST_EVENT, HANG)))
            answer = ask(gateway, key, stream=stream)
            if stage == "headers":
                assert answer.status_code == 504
                assert answer.json()["error"]["code"] == "upstream_timeout"
            else:
                assert answer.status_code == 200
                assert "Hel" in answer.text
                assert '"code":"upstream_timeout"' in answer.text
                assert "[DONE]" not in answer.text
            provider.wait_closed_early()
            assert last_record(gateway, of=1)["status"] == "provider_error"


def test_a_long_stream_outlives_the_timeout_for_whole_answers(tmp_path: Path) -> None:
    with FakeProvider() as provider:
        config = provider_section("openai", provider.base_url, timeout_seconds=0.5)
        with GatewayProcess(tmp_path, config=config) as gateway:
            provider.reply_sse([DELTA] * 10 + [END, "[DONE]"], delay_seconds=0.1)
            answer = ask(gateway, gateway.create_key(), stream=True)
            assert answer.text.endswith("data: [DONE]\n\n")


def test_silence_is_bridged_with_comments_and_a_later_failure_is_in_the_stream(tmp_path: Path) -> None:
    with FakeProvider() as provider:
        config = ONCE + "[server]\nkeepalive_seconds = 0.2\n" + provider_section("openai", provider.base_url)
        with GatewayProcess(tmp_path, config=config) as gateway:
            key = gateway.create_key("--rpm", "0")
            provider.reply(Reply((Wait(0.9),)).then(*json_reply({"error": {"message": "too late"}}, status=500).steps))
            late = ask(gateway, key, stream=True)
            assert late.status_code == 200
            assert late.text.count(": keep-alive\n\n") >= 2
            assert "too late" in late.text
            assert "[DONE]" not in late.text

            provider.reply_json({"error": {"message": "at once"}}, status=500)
            early = ask(gateway, key, stream=True)
            assert early.status_code == 502, "nothing was promised yet, so the failure has its own status"

            provider.reply_sse([DELTA, END, "[DONE]"], delay_seconds=0.5)
            slow = ask(gateway, key, stream=True)
            assert slow.text.replace(": keep-alive\n\n", "").startswith("data: ")
            assert ": keep-alive" in slow.text
            assert slow.text.endswith("data: [DONE]\n\n")


HTML = head(200, {"content-type": "text/html", "content-length": "14"}) + b"<html>o</html>"


def test_no_comments_are_sent_where_they_are_off(tmp_path: Path) -> None:
    with FakeProvider() as provider:
        config = ONCE + "[server]\nkeepalive_seconds = 0\n" + provider_section("openai", provider.base_url)
        with GatewayProcess(tmp_path, config=config) as gateway:
            provider.reply_sse([DELTA, END, "[DONE]"], delay_seconds=0.3)
            answer = ask(gateway, gateway.create_key(), stream=True)
            assert answer.text.endswith("data: [DONE]\n\n")
            assert "keep-alive" not in answer.text


@pytest.mark.parametrize(
    ("reply", "code"),
    [
        ((b"not http at all\r\n\r\n",), "upstream_invalid_response"),
        ((HTML,), "upstream_invalid_response"),
        ((json_head(1) + b"{",), "upstream_invalid_response"),
        ((), "upstream_error"),
        ((json_head(99) + b"{",), "upstream_error"),
        ((head(302, {"location": "http://127.0.0.1:1/", "content-length": "0"}),), "upstream_invalid_response"),
    ],
)
def test_nonsense_from_a_provider_is_told_apart(
    gateway: GatewayProcess, provider: FakeProvider, key: str, reply: tuple[bytes, ...], code: str
) -> None:
    provider.reply(Reply((*reply, CLOSE)))
    answer = ask(gateway, key)
    assert answer.status_code == 502
    assert answer.json()["error"]["code"] == code


def test_a_provider_that_is_not_there(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    config = provider_section("openai", f"http://127.0.0.1:{port}/v1")
    config += provider_section("lost", "http://no-such-host.invalid/v1")
    with GatewayProcess(tmp_path, config=config) as gateway:
        key = gateway.create_key()
        for model in ("gpt-4o", "lost/m"):
            answer = ask(gateway, key, model=model)
            assert answer.status_code == 502
            assert answer.json()["error"]["code"] == "upstream_unreachable"
            assert "canary" not in answer.text


def test_requests_go_through_the_proxy_of_the_environment(tmp_path: Path) -> None:
    with FakeProvider() as proxy:
        environment = {
            "HTTP_PROXY": proxy.url,
            "NO_PROXY": "",
            "OPENAI_API_KEY": "sk-through-a-proxy",
            "OPENAI_BASE_URL": "http://provider.invalid/v1",
        }
        with GatewayProcess(tmp_path / "a", environment=environment) as gateway:
            proxy.reply_json(proxy.completion({"model": "gpt-4o", "messages": []}))
            assert ask(gateway, gateway.create_key()).status_code == 200
            assert proxy.last.target == "http://provider.invalid/v1/chat/completions"
        with GatewayProcess(tmp_path / "b", environment={**environment, "NO_PROXY": "provider.invalid"}) as gateway:
            assert ask(gateway, gateway.create_key()).json()["error"]["code"] == "upstream_unreachable"
