"""``inferxgate chat``: one question, or a conversation on a terminal.

The same gateway answers, inside this process as the operator or, with ``--url``, at another address; ``Door`` is what
both ways look like from here. Each question is one run of the event loop, so that Ctrl-C ends the answer and not the
conversation.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import stat
import sys
from collections.abc import AsyncGenerator, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from pathlib import Path
from typing import Annotated, Any, Protocol

import typer

from inferxgate.canonical.chat import ChatResponse, Chunk, RefusalDelta, TextDelta
from inferxgate.cli import options
from inferxgate.cli.failures import CommandFailed, WrongUsage, describe
from inferxgate.cli.options import Command, ConfigOption
from inferxgate.cli.output import can_ask, note, on_terminal, print_json, print_text
from inferxgate.errors import GatewayError

app = options.new_app("Ask a model, alone or in a pipe.")

ECHO_HINT = "The built-in model echo repeats what you say. Choose another with -m MODEL, or set chat.model."
_ENDINGS: Mapping[str, str] = {
    "length": "(the answer was cut off at the model's limit)",
    "content_filter": "(the provider's content filter stopped the answer)",
}


_COMMAND = re.compile(r"/[A-Za-z]*(?=\s|$)")
"""What a person types who means a command: not ``/etc/hosts``."""


class Door(Protocol):
    """A way to a gateway. Raises ``GatewayError`` and ``CommandFailed``."""

    async def whole(self, body: Mapping[str, Any]) -> tuple[Mapping[str, Any], tuple[Chunk, ...]]:
        """The completion as JSON, and what it says."""

    def stream(self, body: Mapping[str, Any]) -> AsyncGenerator[Chunk, None]:
        """The completion as it comes."""


@app.command(cls=Command)
def chat(
    *,
    ctx: typer.Context,
    prompt: Annotated[
        str | None,
        typer.Argument(metavar="PROMPT", help="The question. Piped input is added to it.", show_default=False),
    ] = None,
    model: Annotated[
        str | None, typer.Option("--model", "-m", metavar="MODEL", help="The model; else chat.model, else echo.")
    ] = None,
    system: Annotated[
        str | None, typer.Option("--system", "-s", metavar="TEXT", help="How the model shall behave.")
    ] = None,
    no_stream: Annotated[bool, typer.Option("--no-stream", help="Wait for the whole answer.")] = False,
    explain: Annotated[
        bool, typer.Option("--explain", help="Show what each target would be asked, and what it may cost; ask nobody.")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the whole completion, or all of the explanation, as JSON.")
    ] = False,
    url: Annotated[
        str | None,
        typer.Option(
            "--url", metavar="URL", envvar="INFERXGATE_URL", help="Ask the gateway at this address, not one in here."
        ),
    ] = None,
    key: Annotated[
        str | None,
        typer.Option("--key", metavar="KEY", envvar="INFERXGATE_API_KEY", help="The API key for that gateway."),
    ] = None,
    config: ConfigOption = None,
) -> None:
    """Ask a model, alone or in a pipe: cat log.txt | inferxgate chat "what broke?"

    With neither a prompt nor a pipe, on a terminal, it is a conversation: Ctrl-C stops an answer, Ctrl-D leaves.
    """
    if not url and _was_typed(ctx, "key"):
        raise WrongUsage("--key is for another gateway: name it with --url or INFERXGATE_URL, or leave the key out")
    if explain and url:
        raise WrongUsage(
            "--explain tells what the gateway in here would do, and --url (INFERXGATE_URL) asks another one: leave one"
            " out, or explain where that gateway's configuration is"
        )
    question = _question(prompt)
    if question is None and (as_json or explain or not (can_ask() and on_terminal())):
        raise WrongUsage("There is nothing to ask: give a prompt, or pipe text in")
    messages = [{"role": "system", "content": _text(system)}] if system else []
    asked = _text(model) if model else options.load(config).settings.chat.model
    hint = None if asked or url else ECHO_HINT
    body: dict[str, Any] = {"model": asked or "echo", "messages": messages}
    if question is not None:
        messages.append({"role": "user", "content": question})
    if explain:
        from inferxgate.cli.explain import explain_chat

        explain_chat(options.load(config), {**body, "stream": not no_stream}, as_json=as_json)
        if hint:
            note(hint)
        return
    with _open(_door(url, key, config)) as (runner, door):
        if question is None:
            _converse(runner, door, body, stream=not no_stream, hint=hint)
            return
        if as_json:
            print_json(runner.run(door.whole(body))[0])
        else:
            runner.run(_show(door, body, ChatResponse(), stream=not no_stream))
        if hint:
            note(hint)


def _was_typed(ctx: typer.Context, name: str) -> bool:
    """Whether an option was given on the command line, and not by the environment."""
    source = ctx.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def _question(prompt: str | None) -> str | None:
    """The prompt and what is piped in; None where there is neither."""
    parts = [_text(prompt)] if prompt else []
    if _is_piped(sys.stdin.fileno()):
        piped = sys.stdin.buffer.read()
        text = piped.decode("utf-8", "replace")
        if "\ufffd" in text and "\ufffd".encode() not in piped:
            note("The input is not all UTF-8; what is not has been replaced.")
        parts += [text] if text.strip() else []
    return "\n\n".join(parts) or None


def _is_piped(fd: int) -> bool:
    """A pipe, a socket or a file; not a terminal, and not the null device that services are started with."""
    mode = os.fstat(fd).st_mode
    return stat.S_ISFIFO(mode) or stat.S_ISREG(mode) or stat.S_ISSOCK(mode)


def _text(argument: str) -> str:
    """An argument as proper text: bytes that are no UTF-8 reach Python as lone surrogates, which JSON cannot hold."""
    return argument.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def _door(url: str | None, key: str | None, config: Path | None) -> AbstractAsyncContextManager[Door]:
    if url:
        from inferxgate.cli.remote import open_remote

        return open_remote(url, key)
    from inferxgate.cli.inside import open_inside

    return open_inside(options.load(config))


@contextlib.contextmanager
def _open(door: AbstractAsyncContextManager[Door]) -> Iterator[tuple[asyncio.Runner, Door]]:
    with asyncio.Runner() as runner:
        stack = AsyncExitStack()
        opened = runner.run(stack.enter_async_context(door))
        try:
            yield runner, opened
        finally:
            runner.run(stack.aclose())


async def _show(door: Door, body: Mapping[str, Any], answer: ChatResponse, *, stream: bool) -> None:
    """Print the answer as it comes, and gather it in ``answer``."""
    last = ""
    try:
        async with contextlib.aclosing(door.stream(body) if stream else _at_once(door, body)) as chunks:
            async for chunk in chunks:
                answer.add(chunk)
                if isinstance(chunk, TextDelta | RefusalDelta) and chunk.choice == 0:
                    print_text(chunk.text)
                    last = chunk.text or last
    except (GatewayError, CommandFailed):
        if last and on_terminal():
            print_text("\n")  # what went wrong goes on a line of its own
        raise
    if not last.endswith("\n"):
        print_text("\n")
    choice = answer.choices.get(0)
    ending = _ENDINGS.get((choice and choice.finish_reason) or "")
    if ending:
        note(ending)
    elif not last:
        note("(the model answered without any text)")


async def _at_once(door: Door, body: Mapping[str, Any]) -> AsyncGenerator[Chunk, None]:
    for chunk in (await door.whole(body))[1]:
        yield chunk


def _converse(runner: asyncio.Runner, door: Door, body: dict[str, Any], *, stream: bool, hint: str | None) -> None:
    with contextlib.suppress(ImportError):
        import readline  # noqa: F401 - it gives input() a line to edit and a history, where the platform has it
    note(f"Talking to {body['model']}. Ctrl-C stops an answer; Ctrl-D or /exit leaves.")
    messages: list[dict[str, str]] = body["messages"]
    while True:
        try:
            line = input("> ")
        except KeyboardInterrupt:
            note("\n(Ctrl-D or /exit leaves)")
            continue
        except EOFError:
            print_text("\n")
            return
        if line.strip() in {"/exit", "/quit"}:
            return
        if not line.strip():
            continue
        if mistyped := _COMMAND.match(line):
            note(f"There is no command {mistyped[0]}; /exit leaves. To send the line, put a space in front of it.")
            continue
        messages.append({"role": "user", "content": _text(line)})
        said = _answer(runner, door, body, stream=stream)
        if said:
            messages.append({"role": "assistant", "content": said})
            if hint:
                note(hint)
                hint = None
        else:
            messages.pop()


def _answer(runner: asyncio.Runner, door: Door, body: Mapping[str, Any], *, stream: bool) -> str:
    """Print one answer of a conversation; as much of it as there was."""
    answer = ChatResponse()
    try:
        runner.run(_show(door, body, answer, stream=stream))
    except KeyboardInterrupt:
        note("\n(stopped)")
    except (GatewayError, CommandFailed) as error:
        note(describe(error)[0])
    choice = answer.choices.get(0)
    return (choice.text or choice.refusal) if choice else ""
