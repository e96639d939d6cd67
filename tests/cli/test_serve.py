"""What ``serve`` says as it starts, and how it ends. What it serves is tested with the server."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

from inferxgate.accounts.keys import looks_like_key
from tests.support.process import GatewayProcess
from tests.support.terminal import CommandLine

PROVIDER = '[providers.local]\ntype = "openai"\nbase_url = "http://127.0.0.1:1/v1"\napi_key = "sk-canary-canary"\n'


def test_it_says_where_it_listens_what_it_found_and_what_to_do_next(tmp_path: Path) -> None:
    with GatewayProcess(tmp_path, config=PROVIDER) as gateway:
        assert httpx.get(f"{gateway.url}/health").status_code == 200
        wait_for(gateway, "There is no key yet.")
        assert f"listens on {gateway.url}\n" in gateway.log
        assert f"\nFor OpenAI's SDKs, base_url is {gateway.base_url}\n" in gateway.log
        assert "Providers: local (http://127.0.0.1:1/v1), echo" in gateway.log
        assert f"Configuration: {gateway.config_path}" in gateway.log
        assert f"Data: {gateway.data_dir}" in gateway.log
        assert "canary" not in gateway.log
        assert "WARNING" not in gateway.log
        command = re.search(r"in another shell: (.*)", gateway.log)
        assert command is not None
        shell = ["/bin/sh", "-c", command[1]]
        made = subprocess.run(shell, env=without_places(gateway), capture_output=True, text=True, check=True)
        secret = made.stdout.strip()
        assert looks_like_key(secret)
        answer = httpx.post(
            f"{gateway.base_url}/chat/completions",
            headers={"authorization": f"Bearer {secret}"},
            json={"model": "echo", "messages": [{"role": "user", "content": "hello"}]},
        )
        assert answer.json()["choices"][0]["message"]["content"] == "hello"
        assert gateway.stop() == 0


def without_places(gateway: GatewayProcess) -> dict[str, str]:
    """The environment of another shell, which knows nothing of this gateway's folders."""
    return {name: value for name, value in gateway.environment.items() if not name.startswith("INFERXGATE")}


def wait_for(gateway: GatewayProcess, text: str) -> None:
    """Until the gateway has said it; what it says first is where it listens."""
    deadline = time.monotonic() + 60
    while text not in gateway.log:
        assert time.monotonic() < deadline, gateway.log
        time.sleep(0.01)


def test_with_a_key_there_is_nothing_more_to_do(tmp_path: Path) -> None:
    gateway = GatewayProcess(tmp_path)
    gateway.create_key()
    with gateway:
        wait_for(gateway, "Data: ")
        assert gateway.stop() == 0
        assert "There is no key yet" not in gateway.log


def test_an_address_that_others_reach_is_told_loudly(tmp_path: Path) -> None:
    with GatewayProcess(tmp_path, arguments=["--host", "0.0.0.0"]) as gateway:
        wait_for(gateway, "There is no key yet.")
        assert "WARNING: 0.0.0.0 is not a loopback address: other machines can reach this gateway." in gateway.log
        assert "WARNING: there is no TLS (server.tls_cert)" in gateway.log
        assert gateway.stop() == 0


def test_half_a_provider_is_told(tmp_path: Path) -> None:
    with GatewayProcess(
        tmp_path,
        config='[providers.mistral]\n[models.smart]\ntargets = ["azure/gpt-5", "mistral/small"]\n',
        environment={"AZURE_OPENAI_API_KEY": "canary"},
    ) as gateway:
        wait_for(gateway, "There is no key yet.")
        assert gateway.stop() == 0
        warnings = [line.strip() for line in gateway.lines if "WARNING" in line]
        assert warnings == [
            (
                "WARNING: providers.mistral has no api_key (MISTRAL_API_KEY gives it one):"
                " it is asked without a credential"
            ),
            (
                "WARNING: AZURE_OPENAI_API_KEY is set and AZURE_OPENAI_ENDPOINT is not:"
                " without it there is no provider azure"
            ),
            "WARNING: models.smart.targets names azure/gpt-5, and there is no provider azure",
        ]
        assert "canary" not in gateway.log


def test_a_json_log_is_json_from_its_first_line(tmp_path: Path) -> None:
    with GatewayProcess(tmp_path, arguments=["--log-format", "json", "--host", "0.0.0.0"]) as gateway:
        wait_for(gateway, "There is no key yet.")
        assert gateway.stop() == 0
        lines = [json.loads(line) for line in gateway.lines]
    assert "listens on" in lines[0]["message"]
    assert {line["level"] for line in lines if "WARNING" in line["message"]} == {"warning"}


def test_flags_win_over_environment_and_file(tmp_path: Path) -> None:
    environment = {"INFERXGATE_SERVER__HOST": "192.0.2.1", "INFERXGATE_SERVER__LOG_LEVEL": "info"}
    gateway = GatewayProcess(
        tmp_path,
        config='[server]\nhost = "192.0.2.2"\nport = 1\n',
        environment=environment,
        arguments=["--host", "127.0.0.1", "--log-level", "error"],
    )
    with gateway:
        assert httpx.get(f"{gateway.url}/health").status_code == 200
        assert gateway.stop() == 0
        assert "stopping" not in gateway.log


def test_ctrl_c_on_a_terminal_ends_it_with_0(cli: CommandLine) -> None:
    with cli.on_terminal("serve", "--port", "0") as terminal:
        terminal.expect("in another shell")
        terminal.press("\x03")
        assert terminal.end() == 0
        assert "Traceback" not in terminal.seen
        assert "interrupted" not in terminal.seen


def test_the_warning_is_red_on_a_terminal(cli: CommandLine) -> None:
    for environment, colour in (({}, True), ({"NO_COLOR": "1"}, False)):
        with cli.on_terminal("serve", "--port", "0", "--host", "0.0.0.0", environment=environment) as terminal:
            terminal.expect("in another shell")
            assert ("\x1b[1;31mWARNING" in terminal.seen) is colour
            terminal.process.send_signal(signal.SIGTERM)
            assert terminal.end() == 0


def test_a_port_in_use_is_one_line(cli: CommandLine) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        line = cli.fails("serve", "--port", str(taken.getsockname()[1]))
    assert "is in use already" in line
    assert "--port" in line


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--port", "many"], 2, "--port must be a whole number; see"),
        (["--port", "70000"], 1, "--port must be 65535 or less"),
        (["--workers", "0"], 1, "--workers must be 1 or more"),
        (["--host", "no such host"], 1, "--host must be"),
        (["--log-level", "loud"], 2, "'loud' is not one of"),
    ],
)
def test_what_cannot_be_served_is_one_line(cli: CommandLine, arguments: list[str], code: int, message: str) -> None:
    assert message in cli.fails("serve", *arguments, code=code)


def test_the_next_command_is_quoted_for_a_shell(tmp_path: Path) -> None:
    folder = tmp_path / "a folder with 'quotes'"
    with GatewayProcess(folder) as gateway:
        wait_for(gateway, "There is no key yet.")
        command = re.search(r"in another shell: (.*)", gateway.log)
        assert command is not None
        words = shlex.split(command[1])
        assert words[0] == f"INFERXGATE_DATA_DIR={gateway.data_dir}"
        assert words[-2:] == ["keys", "create"]
        assert gateway.stop() == 0


@pytest.mark.parametrize("how", ["on the path", "by its place", "through python"])
def test_the_next_command_calls_the_program_as_it_was_called(cli: CommandLine, how: str) -> None:
    folder = cli.folder / "bin"
    folder.mkdir()
    script = folder / "ix-test"
    script.write_text(f"#!{sys.executable}\nfrom inferxgate.cli.main import main\nmain()\n")
    script.chmod(0o755)
    command, shown = {
        "on the path": (["ix-test"], "ix-test"),
        "by its place": (["./ix-test"], "./ix-test"),
        "through python": ([sys.executable, "ix-test"], f"{sys.executable} ix-test"),
    }[how]
    path = f"{folder}{os.pathsep}{cli.environment['PATH']}" if how == "on the path" else cli.environment["PATH"]
    environment = {**cli.environment, "PATH": path, "PYTHONPATH": os.pathsep.join(sys.path)}
    process = subprocess.Popen(
        [*command, "serve", "--port", "0"], env=environment, cwd=folder, stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    line = next(line for line in process.stderr if "in another shell" in line)
    process.terminate()
    process.communicate(timeout=60)
    assert line.endswith(f" {shown} keys create\n")
