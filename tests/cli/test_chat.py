"""Asking from the shell: in a pipe, on a terminal, inside the process and over HTTP."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import pytest

from tests.support.process import GatewayProcess
from tests.support.provider import HANG, RESET, FakeProvider, error_body, sse_reply
from tests.support.terminal import CommandLine

HINT = "The built-in model echo repeats what you say. Choose another with -m MODEL, or set chat.model.\n"


@pytest.fixture
def provider() -> Iterator[FakeProvider]:
    with FakeProvider() as running:
        yield running


@pytest.fixture
def asking(tmp_path: Path, provider: FakeProvider) -> CommandLine:
    """The program with a provider of which chat asks the model ``m``."""
    fake = f'type = "openai"\nbase_url = "{provider.base_url}"\napi_key = "k"\n'
    config = f'[chat]\nmodel = "fake/m"\n[providers.fake]\n{fake}'
    return CommandLine(tmp_path, config=config)


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    with GatewayProcess(tmp_path_factory.mktemp("gateway")) as running:
        yield running


def delta(text: str, **more: Any) -> dict[str, Any]:
    return {"id": "c", "object": "chat.completion.chunk", "choices": [{"index": 0, "delta": {"content": text}, **more}]}


def begun(*texts: str) -> list[object]:
    """A stream that has said this much and not ended."""
    return [delta(text, finish_reason=None) for text in texts]


def read_until(stream: IO[bytes] | None, text: str) -> None:
    """Read what comes, as it comes, until it ends with ``text``."""
    assert stream is not None
    seen = b""
    while not seen.endswith(text.encode()):
        piece = os.read(stream.fileno(), 65_536)
        assert piece, f"only {seen!r} came"
        seen += piece


def start(cli: CommandLine, *arguments: str) -> subprocess.Popen[bytes]:
    return cli.start(*arguments, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


# --- one question


def test_echo_answers_without_any_configuration(cli: CommandLine) -> None:
    done = cli.well("chat", "What a day!")
    assert (done.out, done.err) == ("What a day!\n", HINT)
    done = cli.well("chat", "What a day!", "--json")
    assert (done.json["choices"][0]["message"]["content"], done.err) == ("What a day!", HINT)


def test_the_hint_comes_with_an_answer_and_not_with_a_failure(cli: CommandLine) -> None:
    cli.data_dir.write_text("no folder")
    assert "is not a folder" in cli.fails("chat", "What a day!")


def test_a_key_without_a_gateway_is_wrong_usage(cli: CommandLine) -> None:
    line = cli.fails("chat", "hi", "--key", "ix-api-key-x", code=2)
    assert line.startswith("--key is for another gateway: name it with --url or INFERXGATE_URL")
    assert cli.run("chat", "hi", environment={"INFERXGATE_API_KEY": "ix-api-key-x"}).code == 0


def test_a_model_that_is_named_needs_no_hint(cli: CommandLine) -> None:
    done = cli.well("chat", "-m", "echo", "hello")
    assert (done.out, done.err) == ("hello\n", "")


@pytest.mark.parametrize(
    ("prompt", "piped", "asked"),
    [
        ("what broke?", "line 1\nline 2\n", "what broke?\n\nline 1\nline 2\n"),
        (None, "only this\n", "only this\n"),
        ("only this", "", "only this"),
        ("only this", " \n", "only this"),
        ("ümlaut 日本 🎈", "naïve", "ümlaut 日本 🎈\n\nnaïve"),
    ],
)
def test_a_pipe_is_added_to_the_prompt(cli: CommandLine, prompt: str | None, piped: str, asked: str) -> None:
    done = cli.well("chat", "-m", "echo", *([prompt] if prompt else []), stdin=piped)
    assert done.out == asked.removesuffix("\n") + "\n"


def test_a_file_is_as_good_as_a_pipe(cli: CommandLine) -> None:
    (cli.folder / "log.txt").write_text("from a file")
    with (cli.folder / "log.txt").open("rb") as file:
        process = cli.start("chat", "-m", "echo", stdin=file, stdout=subprocess.PIPE)
        assert process.communicate(timeout=60)[0] == b"from a file\n"


@pytest.mark.parametrize("arguments", [[], ["--json"], [""]])
def test_nothing_to_ask_is_wrong_usage(cli: CommandLine, arguments: list[str]) -> None:
    assert cli.fails("chat", *arguments, code=2) == "There is nothing to ask: give a prompt, or pipe text in"
    assert (
        cli.fails("chat", *arguments, code=2, stdin="  ") == "There is nothing to ask: give a prompt, or pipe text in"
    )


def test_bytes_that_are_no_text_are_replaced(cli: CommandLine) -> None:
    done = cli.well("chat", "-m", "echo", b"caf\xe9", stdin=b"\xff log")
    assert done.out == "caf\ufffd\n\n\ufffd log\n"
    assert done.err == "The input is not all UTF-8; what is not has been replaced.\n"


def test_the_configured_model_is_asked(asking: CommandLine, provider: FakeProvider) -> None:
    done = asking.well("chat", "-s", "Be brief.", "hi")
    assert (done.out, done.err) == (f"{provider.text}\n", "")
    asked = provider.last.json()
    assert (asked["model"], asked["stream"]) == ("m", True)
    assert asked["messages"] == [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "hi"}]
    asking.well("chat", "-m", "fake/other", "hi")
    assert provider.last.json()["model"] == "other"


def test_whole_answers(asking: CommandLine, provider: FakeProvider) -> None:
    assert asking.well("chat", "hi", "--no-stream").out == f"{provider.text}\n"
    assert provider.last.json()["stream"] is False


def test_json_is_the_whole_completion(asking: CommandLine, provider: FakeProvider) -> None:
    body = asking.well("chat", "hi", "--json").json
    assert body["choices"][0]["message"]["content"] == provider.text
    assert body["usage"]["total_tokens"] == 30


def test_what_is_asked_here_is_recorded_as_nobodys(asking: CommandLine) -> None:
    asking.well("chat", "hi")
    report = asking.well("stats", "--json").json
    assert (report["totals"]["requests"], report["totals"]["prompt_tokens"]) == (1, 21)
    (record,) = report["recent"]
    assert (record["status"], record["provider"], record["model"]) == ("ok", "fake", "m")
    assert (record["key_id"], record["user_id"]) == (None, None)


def test_an_answer_is_shown_as_it_comes(asking: CommandLine, provider: FakeProvider) -> None:
    provider.reply(sse_reply(begun("Half of ", "an ans")).cut_short(HANG, keep=3))
    process = start(asking, "chat", "hi")
    read_until(process.stdout, "Half of an ans")
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (130, b"inferxgate: interrupted\n")
    provider.wait_closed_early()
    (record,) = asking.well("stats", "--json").json["recent"]
    assert record["status"] == "client_closed"


def test_an_interrupt_before_the_first_byte(asking: CommandLine, provider: FakeProvider) -> None:
    provider.reply(HANG)
    process = start(asking, "chat", "hi")
    provider.wait_for_requests(1, 60)
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=60) == (b"", b"inferxgate: interrupted\n")
    assert process.returncode == 130
    provider.wait_closed_early()


def test_a_reader_that_leaves_ends_the_answer(asking: CommandLine, provider: FakeProvider) -> None:
    provider.reply_sse([*begun(*["many words "] * 400), "[DONE]"], delay_seconds=0.02)
    process = start(asking, "chat", "hi")
    read_until(process.stdout, "words ")
    assert process.stdout is not None
    process.stdout.close()
    assert process.wait(60) == 1
    assert process.stderr is not None
    assert process.stderr.read() == b""
    provider.wait_closed_early()


def test_a_stream_that_breaks_off_is_told(asking: CommandLine, provider: FakeProvider) -> None:
    provider.reply(sse_reply(begun("Half of ", "an ans")).cut_short(RESET, keep=3))
    done = asking.run("chat", "hi")
    assert done.code == 1
    assert done.out == "Half of an ans"
    assert done.err.startswith("inferxgate: ")
    assert done.err.count("\n") == 1


@pytest.mark.parametrize(
    ("reason", "note"),
    [
        ("length", "(the answer was cut off at the model's limit)\n"),
        ("content_filter", "(the provider's content filter stopped the answer)\n"),
        ("stop", ""),
    ],
)
def test_an_answer_that_is_not_whole_says_so(
    asking: CommandLine, provider: FakeProvider, reason: str, note: str
) -> None:
    provider.reply_sse([delta("so far", finish_reason=reason), "[DONE]"])
    done = asking.well("chat", "hi")
    assert (done.out, done.err) == ("so far\n", note)


def test_a_failure_on_a_terminal_has_a_line_of_its_own(asking: CommandLine, provider: FakeProvider) -> None:
    provider.reply(sse_reply(begun("Half of ", "an ans")).cut_short(RESET, keep=3))
    with asking.on_terminal("chat", "hi") as terminal:
        assert terminal.end() == 1
        assert terminal.seen.startswith("Half of an ans\ninferxgate: ")


def test_an_answer_without_text_says_so(asking: CommandLine, provider: FakeProvider) -> None:
    provider.reply_sse([delta("", finish_reason="stop"), "[DONE]"])
    done = asking.well("chat", "hi")
    assert (done.out, done.err) == ("\n", "(the model answered without any text)\n")


def test_a_refusal_of_the_provider_is_one_line(asking: CommandLine, provider: FakeProvider) -> None:
    provider.reply_json(error_body("That model\nis asleep."), status=400)
    assert "That model is asleep." in asking.fails("chat", "hi")


def test_a_refused_credential_is_one_line_that_names_where_it_is_set(tmp_path: Path, provider: FakeProvider) -> None:
    section = f'[providers.fake]\ntype = "openai"\nbase_url = "{provider.base_url}"\n'
    refused = 'The provider fake refused the credential (status 401); look at {}. It said: {{"error":{{"message":"No"'
    for config, environment, place in [
        ('api_key = "key-of-a-file"\n', {}, f"providers.fake.api_key in {tmp_path / 'config.toml'}"),
        ("", {}, "providers.fake.api_key, which is not set"),
        (
            "",
            {"INFERXGATE_PROVIDERS__FAKE__API_KEY": "key-of-a-variable"},
            "the environment variable INFERXGATE_PROVIDERS__FAKE__API_KEY (providers.fake.api_key)",
        ),
        ('api_keys = ["one", "another"]\n', {}, f"providers.fake.api_keys in {tmp_path / 'config.toml'}"),
    ]:
        for more in ([], ["--no-stream"]):
            for _ in range(1 + ("api_keys" in config)):
                provider.reply_json(error_body("No"), status=401)
            asking = CommandLine(tmp_path, config=section + config, environment=environment)
            assert asking.fails("chat", "-m", "fake/m", "hi", *more).startswith(refused.format(place))


def test_an_unknown_model_is_one_line(cli: CommandLine) -> None:
    assert "There is no model 'gtp-5'" in cli.fails("chat", "-m", "gtp-5", "hi")


def test_a_provider_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    config = '[providers.fake]\ntype = "openai"\nbase_url = "http://127.0.0.1:1/v1"\n'
    assert "fake" in CommandLine(tmp_path, config=config).fails("chat", "-m", "fake/m", "hi")


# --- on a terminal


def test_an_answer_cannot_command_the_terminal_but_a_pipe_gets_it_all(cli: CommandLine) -> None:
    wild = "tab\there \x1b]0;pwned\x07 \x9b31m 👩‍👩‍👧 end"
    assert cli.well("chat", "-m", "echo", wild).out == f"{wild}\n"
    with cli.on_terminal("chat", "-m", "echo", wild) as terminal:
        assert terminal.end() == 0
        assert "\\x1b]0;pwned\\x07 \\x9b31m 👩‍👩‍👧 end" in terminal.seen
        assert "\x1b" not in terminal.seen


def test_a_conversation_remembers(asking: CommandLine, provider: FakeProvider) -> None:
    with asking.on_terminal("chat", "-s", "Be brief.") as terminal:
        terminal.expect("Talking to fake/m.")
        terminal.expect("> ")
        terminal.press("first\n")
        terminal.expect(provider.text)
        terminal.expect("> ")
        terminal.press("\nsecond\n")  # an empty line asks nothing
        terminal.expect(provider.text)
        terminal.expect("> ")
        terminal.press("/exit\n")
        assert terminal.end() == 0
    assert len(provider.requests) == 2
    assert provider.last.json()["messages"] == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "first"},
        {"role": "assistant", "content": provider.text},
        {"role": "user", "content": "second"},
    ]


def test_a_mistyped_command_is_told_and_not_sent(cli: CommandLine) -> None:
    with cli.on_terminal("chat") as terminal:
        for line, answer in (
            ("/exti", "There is no command /exti; /exit leaves."),
            ("/model gpt-5", "There is no command /model; /exit leaves."),
            (" /exti", "\n /exti\n"),
            ("/etc/hosts is empty", "\n/etc/hosts is empty\n"),
        ):
            terminal.expect("> ")
            terminal.press(f"{line}\n")
            terminal.expect(answer)
        terminal.expect("> ")
        terminal.press("/exit\n")
        assert terminal.end() == 0
        assert terminal.seen.count(HINT) == 1


def test_a_conversation_outlives_errors_and_interrupts(asking: CommandLine, provider: FakeProvider) -> None:
    provider.reply_json(error_body("No."), status=400)
    provider.reply(sse_reply(begun("I was just saying")).cut_short(HANG, keep=2))
    with asking.on_terminal("chat") as terminal:
        terminal.expect("> ")
        terminal.press("first\n")
        terminal.expect("No.")
        terminal.expect("> ")
        terminal.press("second\n")
        terminal.expect("I was just saying")
        terminal.press("\x03")
        terminal.expect("(stopped)")
        terminal.expect("> ")
        terminal.press("never sent")
        terminal.expect("never sent")
        terminal.press_until("\x03", "(Ctrl-D or /exit leaves)")
        terminal.expect("> ")
        terminal.press("third\n")
        terminal.expect(provider.text)
        terminal.expect("> ")
        terminal.press("\x04")
        assert terminal.end() == 0
        assert "Traceback" not in terminal.seen
    assert provider.last.json()["messages"] == [  # the failed question is forgotten, the half answer is not
        {"role": "user", "content": "second"},
        {"role": "assistant", "content": "I was just saying"},
        {"role": "user", "content": "third"},
    ]


# --- another gateway


@pytest.mark.parametrize("path", ["", "/", "/v1", "/v1/"])
def test_a_gateway_at_an_address(cli: CommandLine, gateway: GatewayProcess, path: str) -> None:
    key = gateway.create_key()
    done = cli.well("chat", "-m", "echo", "hello", "--url", gateway.url + path, "--key", key)
    assert (done.out, done.err) == ("hello\n", "")
    assert not cli.data_dir.exists()


def test_a_gateway_named_by_the_environment(cli: CommandLine, gateway: GatewayProcess) -> None:
    environment = {"INFERXGATE_URL": gateway.url, "INFERXGATE_API_KEY": gateway.create_key()}
    for more in ([], ["--no-stream"]):
        done = cli.run("chat", "hello", *more, environment=environment)
        assert (done.code, done.out, done.err) == (0, "hello\n", "")
    done = cli.run("chat", "hello", "--json", environment=environment)
    assert done.json["choices"][0]["message"]["content"] == "hello"


def test_a_gateway_that_wants_a_key(cli: CommandLine, gateway: GatewayProcess) -> None:
    line = cli.fails("chat", "-m", "echo", "hello", "--url", gateway.url)
    assert line == f"{gateway.url} wants an API key; give one with --key or INFERXGATE_API_KEY"
    line = cli.fails("chat", "-m", "echo", "hello", "--url", gateway.url, "--key", "wrong")
    assert line.endswith("; check --key or INFERXGATE_API_KEY")


def test_a_gateway_behind_tls(tmp_path: Path, cli: CommandLine) -> None:
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"]
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", *subject]
    subprocess.run([*command, "-keyout", str(key), "-out", str(cert)], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        address = f"127.0.0.1:{listening.getsockname()[1]}"

        def answer() -> None:
            for _ in range(2):
                raw, _ = listening.accept()
                with raw, contextlib.suppress(OSError):
                    context.wrap_socket(raw, server_side=True)

        thread = threading.Thread(target=answer)
        thread.start()
        line = cli.fails("chat", "-m", "m", "hi", "--url", f"http://{address}")
        assert line.endswith("; if it speaks TLS, write https:// in --url")
        line = cli.fails("chat", "-m", "m", "hi", "--url", f"https://{address}")
        assert "its certificate is not trusted (self" in line
        assert line.endswith("in SSL_CERT_FILE")
        thread.join()


def test_tls_towards_a_gateway_without_it(cli: CommandLine, gateway: GatewayProcess) -> None:
    line = cli.fails("chat", "-m", "m", "hi", "--url", gateway.url.replace("http:", "https:"))
    assert line.endswith("; if it speaks no TLS, write http:// in --url")


def test_a_gateway_that_refuses(cli: CommandLine, gateway: GatewayProcess) -> None:
    key = gateway.create_key("--models", "gpt-*")
    line = cli.fails("chat", "-m", "echo", "hello", "--url", gateway.url, "--key", key)
    assert "may not use the model 'echo'" in line


def test_a_gateway_that_is_not_there(cli: CommandLine) -> None:
    line = cli.fails("chat", "-m", "echo", "hello", "--url", "http://127.0.0.1:1")
    assert line.startswith("Cannot reach http://127.0.0.1:1: ")
    assert line.endswith("; is the gateway running there?")


@pytest.mark.parametrize("url", ["localhost:3000", "ftp://localhost", "http://", "http://[::1"])
def test_an_address_that_is_none(cli: CommandLine, url: str) -> None:
    assert f"'{url}' is not an address" in cli.fails("chat", "-m", "echo", "hello", "--url", url, code=2)


def test_a_key_that_cannot_be_sent_is_not_repeated(cli: CommandLine) -> None:
    line = cli.fails("chat", "-m", "echo", "hi", "--url", "http://127.0.0.1:1", "--key", "bad\nkey", code=2)
    assert "bad" not in line


def test_a_remote_stream_that_breaks_off(cli: CommandLine, provider: FakeProvider) -> None:
    provider.reply_sse(begun("Half of ", "an ans"))
    done = cli.run("chat", "-m", "m", "hi", "--url", provider.url)
    assert (done.code, done.out) == (1, "Half of an ans")
    assert done.err == "inferxgate: The answer broke off before its end; try again\n"


def test_a_remote_error_inside_the_stream(cli: CommandLine, provider: FakeProvider) -> None:
    provider.reply_sse([*begun("Half of "), error_body("The provider went away.")])
    done = cli.run("chat", "-m", "m", "hi", "--url", provider.url)
    assert (done.code, done.out, done.err) == (1, "Half of ", "inferxgate: The provider went away.\n")


def test_something_else_at_the_address(cli: CommandLine, provider: FakeProvider) -> None:
    provider.reply_raw(b"SSH-2.0-OpenSSH_9.6\r\n")
    provider.reply_json(["nonsense"], status=418)
    provider.reply_json(["nonsense"])
    for word in ("failed", "status 418", "broke off"):
        assert word in cli.fails("chat", "-m", "m", "hi", "--url", provider.url)
