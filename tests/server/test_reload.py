"""The configuration changes while a server runs: nobody loses a request, and what is wrong changes nothing."""

from __future__ import annotations

import dataclasses
import fcntl
import itertools
import json
import logging
import os
import re
import signal
import subprocess
import termios
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from inferxgate.catalog.price_list import FILE_NAME
from inferxgate.config import Loaded, load_settings
from inferxgate.config_watch import Source, Watch
from inferxgate.runtime import Prepared, prepare
from inferxgate.server.reload import Reloading
from inferxgate.store.records import UsageFilter
from tests.server.conftest import World, bearer, opened
from tests.server.test_run import Running, slow_stream
from tests.server.test_workers import births, gone, until, workers
from tests.support.certificates import AUTHORITY
from tests.support.process import GatewayProcess, program, provider_section
from tests.support.provider import FakeProvider
from tests.support.terminal import CommandLine

EVERYTHING = UsageFilter(0, 2**53)
ONE = '[providers.one]\ntype = "openai"\nbase_url = "http://127.0.0.1:1/v1"\napi_key = "sk-canary-one"\n'
OTHER = '[providers.other]\ntype = "openai"\nbase_url = "http://127.0.0.1:2/v1"\napi_key = "sk-canary-two"\n'
"""With two providers, a name that nobody is known to have leads nowhere."""
READ_AGAIN = "the configuration was read again: "
DEGRADED = 'llm_gateway_degraded{{part="configuration"}} {}.0\n'
REFUSED = "the configuration cannot be read again, so the one before stays in force: "


def alias(name: str, *targets: str) -> str:
    return f"[models.{name}]\ntargets = {json.dumps(targets)}\n"


@pytest.fixture
def provider() -> Iterator[FakeProvider]:
    with FakeProvider() as fake:
        yield fake


# --- what is decided


class Deciding:
    """A configuration that is looked at whenever a test wishes."""

    def __init__(self, folder: Path, text: str) -> None:
        self.file = folder / "config.toml"
        self.environ = {"INFERXGATE_DATA_DIR": str(folder / "data"), "XDG_CONFIG_HOME": str(folder)}
        self.prices = folder / "data" / FILE_NAME
        self.prices.parent.mkdir()
        self.file.write_text(text)
        self.made: list[Loaded] = []
        watch = Watch(self.file)
        source = Source(self.file, self.read, watch)
        self.reloading = Reloading(source, self.read())

    def read(self) -> Loaded:
        return load_settings(config_path=self.file, flags={"server.port": 7}, environ=self.environ)

    def make(self, loaded: Loaded) -> Prepared:
        self.made.append(loaded)
        return prepare(loaded)

    def look(self, *, asked: bool = False) -> str | None:
        """What has come into force, in words; None: nothing."""
        change = self.reloading.look(self.make, asked=asked)
        if change is None:
            return None
        change.tell()
        assert change.state is self.reloading.state
        return change.words

    @property
    def providers(self) -> set[str]:
        return {*self.reloading.state.loaded.settings.providers}


@pytest.fixture
def deciding(tmp_path: Path) -> Deciding:
    return Deciding(tmp_path, ONE)


def errors(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]


def test_a_changed_file_is_in_force_when_it_stands_still(deciding: Deciding) -> None:
    assert deciding.look() is None
    deciding.file.write_text(ONE.replace("one", "two"))
    assert [deciding.look(), deciding.look(), deciding.look()] == [None, "providers +two, -one", None]
    assert deciding.providers == {"two"}
    assert deciding.reloading.state.version == 1
    assert deciding.reloading.state.loaded.settings.server.port == 7, "the flags are as they were"


def test_whoever_asks_need_not_wait(deciding: Deciding) -> None:
    deciding.file.write_text(ONE.replace("one", "two"))
    assert deciding.look(asked=True) == "providers +two, -one"
    assert [deciding.look(), deciding.look()] == [None, None]
    assert deciding.look(asked=True) == "nothing that is in force has changed"


def test_a_mistake_is_told_once_and_changes_nothing(deciding: Deciding, caplog: pytest.LogCaptureFixture) -> None:
    before = deciding.reloading.state
    deciding.file.write_text(ONE.replace("one", "two") + "prot = 1\n")
    for _ in range(5):
        assert deciding.look() is None
    [told] = errors(caplog)
    assert told.startswith(f"{REFUSED}{deciding.file}, line 5: providers.two.prot is not a setting")
    assert deciding.reloading.state == dataclasses.replace(before, mistaken=True)
    deciding.look(asked=True)
    assert len(errors(caplog)) == 2, "who asks is told again"
    deciding.file.write_text(ONE)
    assert [deciding.look(), deciding.look()] == [None, "nothing that is in force has changed"]
    assert not deciding.reloading.state.mistaken


def test_what_is_half_written_is_not_told_if_the_next_look_finds_it_good(
    deciding: Deciding, caplog: pytest.LogCaptureFixture
) -> None:
    deciding.file.write_text('[providers.two]\ntype = "op')
    assert [deciding.look(), deciding.look()] == [None, None]
    assert deciding.reloading.state.loaded.settings.providers.keys() == {"one"}
    deciding.file.write_text(ONE.replace("one", "two"))
    assert [deciding.look(), deciding.look()] == [None, "providers +two, -one"]
    assert errors(caplog) == []
    assert not deciding.reloading.state.mistaken


def test_a_file_that_is_gone_is_a_mistake(deciding: Deciding, caplog: pytest.LogCaptureFixture) -> None:
    deciding.file.unlink()
    for _ in range(4):
        assert deciding.look() is None
    assert "There is no configuration file" in "".join(errors(caplog))
    assert deciding.providers == {"one"}
    deciding.file.write_text(ONE)
    assert [deciding.look(), deciding.look()] == [None, "nothing that is in force has changed"]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("not toml", "line 1: not TOML"),
        (ONE + 'ca_file = "config.toml"\n', "config.toml"),
        (ONE.replace("sk-canary-one", "${file:none}"), "line 4: providers.one.api_key needs the file"),
        (ONE.replace("sk-canary-one", "${NOT_SET}"), "needs the environment variable NOT_SET"),
    ],
)
def test_whatever_is_wrong_is_found_before_anything_changes(
    deciding: Deciding, caplog: pytest.LogCaptureFixture, text: str, says: str
) -> None:
    deciding.file.write_text(alias("smart", "one/m") + "\n" + text)
    assert deciding.look(asked=True) is None
    [told] = errors(caplog)
    assert says.replace("line 1", "line 4").replace("line 4: prov", "line 7: prov") in told
    assert deciding.reloading.state.version == 0
    assert not deciding.reloading.state.loaded.settings.models


def test_secrets_in_files_are_read_again_and_never_told(deciding: Deciding, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    secret = deciding.file.with_name("secret")
    secret.write_text("canary-1")
    deciding.file.write_text(ONE.replace("sk-canary-one", "${file:secret}"))
    assert deciding.look(asked=True) == "providers one changed"
    secret.write_text("canary-2")
    assert deciding.look(asked=True) == "providers one changed"
    key = deciding.reloading.state.loaded.settings.providers["one"].api_key
    assert key is not None
    assert key.get_secret_value() == "canary-2"
    assert "canary" not in caplog.text


def test_what_needs_a_restart_is_named_once_and_the_rest_is_in_force(
    deciding: Deciding, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    fixed = '[server]\nhost = "127.0.0.9"\nworkers = 2\n[storage]\nkeep_days = 1\n'
    deciding.file.write_text(ONE.replace("one", "two") + fixed)
    assert deciding.look(asked=True) == "providers +two, -one"
    deciding.file.write_text(ONE + fixed)
    assert deciding.look(asked=True) == "providers +one, -two"
    told = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    names = "server.host, server.workers, storage.keep_days"
    assert told == [f"{names} changed in the configuration: only a restart brings that into force"]
    in_force = deciding.reloading.state.loaded.settings
    assert (in_force.server.host, in_force.server.workers, in_force.storage.keep_days) == ("127.0.0.1", 1, 90)


def test_a_price_list_that_changes_is_in_force_and_one_that_is_wrong_is_not(
    deciding: Deciding, caplog: pytest.LogCaptureFixture
) -> None:
    prices = {"input_mtok": 1, "output_mtok": 2}
    model = {"id": "m", "match": {"equals": "m"}, "prices": prices}
    deciding.prices.write_text(json.dumps([{"id": "openai", "name": "OpenAI", "models": [model]}]))
    assert [deciding.look(), deciding.look()] == [None, "another price list"]
    deciding.prices.write_text("[]")
    for _ in range(4):
        assert deciding.look() is None
    assert "the price file" in "".join(errors(caplog))
    assert deciding.reloading.state.mistaken


def test_a_warning_is_told_when_it_is_new(deciding: Deciding, caplog: pytest.LogCaptureFixture) -> None:
    deciding.file.write_text(ONE + ONE.replace("one", "two").replace("/v1", "/v1/chat/completions"))
    deciding.look(asked=True)
    deciding.file.write_text(deciding.file.read_text() + alias("smart", "one/m"))
    assert deciding.look(asked=True) == "models +smart"
    assert caplog.text.count("providers.two.base_url ends with /chat/completions") == 1
    deciding.file.write_text(ONE + alias("smart", "one/m", "two/m"))
    assert deciding.look(asked=True) is not None
    assert caplog.text.count("models.smart.targets names two/m, and there is no provider two") == 1


def test_a_fault_of_ours_ends_nothing(deciding: Deciding, caplog: pytest.LogCaptureFixture) -> None:
    def fail(_: Loaded) -> Prepared:
        raise KeyError("ours")

    assert deciding.reloading.look(fail, asked=True) is None
    assert "stays in force" in caplog.text
    assert deciding.reloading.state.mistaken
    assert deciding.look(asked=True) is not None
    assert not deciding.reloading.state.mistaken


# --- under load


class Load:
    """Clients that ask for an alias, whole and streamed, on connections that stay open, until they are told to stop."""

    def __init__(self, world: World, secret: str, count: int) -> None:
        self.answers: Counter[str] = Counter()
        self.failures: list[str] = []
        self._world = world
        self._secret = secret
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._ask_on, args=(number,), daemon=True) for number in range(count)]
        for thread in self._threads:
            thread.start()

    def _ask_on(self, number: int) -> None:
        with httpx.Client(base_url=self._world.url, headers=bearer(self._secret), timeout=60) as client:
            for turn in itertools.count(number):
                if self._stop.is_set():
                    return
                try:
                    self._ask(client, stream=turn % 2 == 0)
                except (httpx.HTTPError, AssertionError, KeyError, ValueError) as error:
                    self.failures.append(repr(error))

    def _ask(self, client: httpx.Client, *, stream: bool) -> None:
        answer = client.post("/v1/chat/completions", json=asking("smart", stream=stream))
        assert answer.status_code == 200, answer.text
        if stream:
            assert answer.text.endswith("data: [DONE]\n\n"), answer.text
            assert '"error"' not in answer.text
            assert '"finish_reason":"stop"' in answer.text
        else:
            assert answer.json()["choices"][0]["message"]["content"] == FakeProvider.text
        self.answers[answer.headers["x-inferxgate-model"]] += 1

    def stop(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(60)


def asking(model: str, *, stream: bool = False) -> dict[str, Any]:
    return {"model": model, "messages": [{"role": "user", "content": "hello"}], "stream": stream}


class Changing:
    """A gateway whose configuration a test changes."""

    def __init__(self, world: World, count: int) -> None:
        self.world = world
        self.count = count
        self.file = world.process.config_path

    @property
    def log(self) -> str:
        return self.world.process.log

    def hang_up(self) -> None:
        assert self.world.process.process is not None
        self.world.process.process.send_signal(signal.SIGHUP)

    def replace(self, text: str) -> None:
        """As editors do."""
        new = self.file.with_suffix(".new")
        new.write_text(text)
        new.rename(self.file)

    def until_in_force(self, words: str, times: int = 1) -> None:
        """Wait until it is told that a change is in force, and until it is so in all workers."""
        until(lambda: self.log.count(READ_AGAIN + words) >= times, f"{words}:\n{self.log}")
        if self.count > 1:
            until(lambda: self.log.count(" is in force\n") >= self.count * self.log.count(READ_AGAIN))

    def ask(self, model: str = "smart") -> httpx.Response:
        """On a connection of its own, so that any worker may get it."""
        secret = self.world.secret(rpm=0)
        return httpx.post(
            f"{self.world.url}/v1/chat/completions", json=asking(model), headers=bearer(secret), timeout=60
        )

    def served_by(self, model: str = "smart") -> str:
        answer = self.ask(model)
        assert answer.status_code == 200, answer.text
        return answer.headers["x-inferxgate-model"]

    def health(self) -> dict[str, str]:
        found: dict[str, str] = httpx.get(f"{self.world.url}/health", timeout=60).json()
        return found


@pytest.fixture(params=[1, 4])
def count(request: pytest.FixtureRequest) -> int:
    return int(request.param)


def arguments(count: int) -> tuple[str, ...]:
    return ("--workers", str(count), "--log-level", "debug")


def test_no_request_fails_while_the_configuration_changes_under_load(tmp_path: Path, count: int) -> None:
    with FakeProvider() as one, FakeProvider() as two:
        # With authorities of its own a provider has an engine of its own, which comes and goes with it.
        section = provider_section("one", one.base_url, ca_file=str(AUTHORITY), max_parallel_requests=3)
        first = section + alias("smart", "one/m")
        second = provider_section("two", two.base_url) + alias("smart", "two/m")
        with opened(tmp_path, first, *arguments(count)) as world:
            gateway = Changing(world, count)
            load = Load(world, world.secret(rpm=0), 6)
            until(lambda: load.answers.total() > 50)
            for turn in range(1, 6):
                gateway.file.write_text(second)
                gateway.hang_up()
                gateway.until_in_force("providers +two, -one", turn)
                assert gateway.served_by() == "two/m"
                one.wait_for(lambda seen: seen.open_connections == 0)  # long before idle ones are given up
                gateway.replace(first)
                gateway.hang_up()
                gateway.until_in_force("providers +one, -two", turn)
                assert gateway.served_by() == "one/m"
            total = load.answers.total()
            until(lambda: load.answers.total() > total + 50)
            load.stop()
            assert load.failures == []
            assert load.answers.keys() == {"one/m", "two/m"}
            assert world.process.stop() == 0
            records = world.store.recent_usage(EVERYTHING, limit=1_000_000)
            assert {record.status for record in records} == {"ok"}
            assert len(records) == load.answers.total() + 10
            assert "Traceback" not in gateway.log
            assert "canary" not in gateway.log


def test_a_change_of_the_file_is_enough(tmp_path: Path, count: int, provider: FakeProvider) -> None:
    section = provider_section("one", provider.base_url) + OTHER
    with opened(tmp_path, section + alias("smart", "one/m"), *arguments(count)) as world:
        gateway = Changing(world, count)
        assert gateway.served_by("smart") == "one/m"
        gateway.file.write_text(section + alias("clever", "one/n"))
        gateway.until_in_force("models +clever, -smart")
        assert gateway.served_by("clever") == "one/n"
        gone_now = gateway.ask("smart")
        assert (gone_now.status_code, gone_now.json()["error"]["code"]) == (404, "model_not_found")
        gateway.replace(section + alias("smart", "one/m"))
        gateway.until_in_force("models +smart, -clever")
        assert gateway.served_by("smart") == "one/m"
        assert provider.connections <= count, "the engine and its connections are still the same"


def test_a_wrong_file_keeps_the_old_one_and_says_why_once(tmp_path: Path, count: int, provider: FakeProvider) -> None:
    good = provider_section("one", provider.base_url) + OTHER + alias("smart", "one/m")
    with opened(tmp_path, good, *arguments(count)) as world:
        gateway = Changing(world, count)
        gateway.file.write_text(good + '\n[models.other]\ntargets = ["one/m"]\nstrategy = "best"\n')
        gateway.hang_up()
        until(lambda: REFUSED in gateway.log)
        until(lambda: gateway.health()["status"] == "degraded")
        assert "configuration" in gateway.health()["reason"]
        assert str(tmp_path) not in gateway.health()["reason"]
        assert gateway.served_by() == "one/m"
        assert gateway.ask("other").status_code == 404
        admin = world.person("admin")
        until(lambda: DEGRADED.format(count) in world.get("/metrics", admin.token).text)
        [told] = re.findall(r"error +server: (.*)", gateway.log)
        assert told.startswith(f"{REFUSED}{gateway.file}, line 14: models.other.strategy must be 'ordered'")
        gateway.file.write_text(good + alias("other", "one/m"))
        gateway.until_in_force("models +other")
        until(lambda: gateway.health()["status"] == "healthy")
        until(lambda: DEGRADED.format(0) in world.get("/metrics", admin.token).text)
        assert gateway.served_by("other") == "one/m"


def test_what_runs_to_a_provider_that_goes_is_finished(tmp_path: Path, count: int, provider: FakeProvider) -> None:
    other = provider_section("other", provider.base_url)
    section = provider_section("openai", provider.base_url, ca_file=str(AUTHORITY))
    with opened(tmp_path, other + section, *arguments(count)) as world:
        gateway = Changing(world, count)
        provider.reply(slow_stream(3))
        running = Running(world, world.secret(rpm=0))
        gateway.file.write_text(other)
        gateway.hang_up()
        gateway.until_in_force("providers -openai")
        assert gateway.ask("openai/gpt-4o").headers["x-inferxgate-model"] == "other/openai/gpt-4o"
        gateway.hang_up()
        text = running.rest()
        assert '"content": "two"' in text
        assert text.endswith("data: [DONE]\n\n")
        assert world.process.stop() == 0
        assert {record.status for record in world.store.recent_usage(EVERYTHING, limit=10)} == {"ok"}


def test_limits_and_more_are_in_force_at_once(tmp_path: Path, count: int) -> None:
    with opened(tmp_path, "[limits]\nrequests_per_minute = 1000\n", *arguments(count)) as world:
        gateway = Changing(world, count)
        headers = bearer(world.secret())

        def limit() -> str:
            return httpx.get(f"{world.url}/v1/models", headers=headers, timeout=60).headers["x-ratelimit-limit"]

        assert {limit() for _ in range(8)} == {"1000"}
        gateway.file.write_text(
            '[limits]\nrequests_per_minute = 7\n[server]\nmax_body_mb = 1\n[auth]\nregistration = "closed"\n'
        )
        gateway.hang_up()
        gateway.until_in_force("server.max_body_mb, auth.registration, limits.requests_per_minute changed")
        assert {limit() for _ in range(8)} == {"7"}
        body = asking("echo") | {"user": "x" * 2**20}
        large = httpx.post(f"{world.url}/v1/chat/completions", headers=headers, json=body, timeout=60)
        assert large.status_code == 413
        refused = httpx.post(f"{world.url}/auth/register", json={"email": "a@b.example", "password": "x" * 20})
        assert refused.json()["error"]["code"] == "registration_closed"


def test_the_log_level_changes_too(tmp_path: Path, count: int) -> None:
    with opened(tmp_path, '[server]\nlog_level = "error"\n', "--workers", str(count)) as world:
        gateway = Changing(world, count)
        assert httpx.get(f"{world.url}/health/live").status_code == 200
        gateway.file.write_text('[server]\nlog_level = "debug"\n')
        gateway.hang_up()
        until(lambda: READ_AGAIN + "server.log_level changed" in gateway.log)
        until(lambda: httpx.get(f"{world.url}/health/live").status_code and "path=/health/live" in gateway.log)
        gateway.file.write_text('[server]\nlog_level = "error"\n')
        gateway.hang_up()

        def silent() -> bool:
            lines = gateway.log.count("path=/health/live")
            for _ in range(count * 4):
                assert httpx.get(f"{world.url}/health/live").status_code == 200
            time.sleep(0.2)
            return gateway.log.count("path=/health/live") == lines

        until(silent)


# --- beside it


def test_a_worker_that_is_born_later_has_the_newest_that_is_good(tmp_path: Path, provider: FakeProvider) -> None:
    section = provider_section("one", provider.base_url)
    with opened(tmp_path, section + alias("smart", "one/m"), *arguments(4)) as world:
        gateway = Changing(world, 4)
        gateway.file.write_text(section + alias("smart", "one/n"))
        gateway.hang_up()
        gateway.until_in_force("models smart changed")
        gateway.file.write_text("nonsense")
        prices = world.process.data_dir / FILE_NAME
        prices.write_text("[]")
        gateway.hang_up()
        until(lambda: REFUSED in gateway.log)
        for pid in workers(world.process).values():
            os.kill(pid, signal.SIGKILL)
        until(lambda: births(world.process) == 8)
        until(lambda: "Workers that do not serve" not in gateway.health().get("reason", ""))
        assert {gateway.served_by() for _ in range(12)} == {"one/n"}
        assert gateway.health()["status"] == "degraded"
        gateway.file.write_text(section + alias("smart", "one/o"))
        prices.unlink()
        gateway.hang_up()
        until(lambda: gateway.log.count("configuration 2 is in force") == 4)
        assert {gateway.served_by() for _ in range(12)} == {"one/o"}
        assert world.process.stop() == 0


def test_a_hang_up_of_the_group_is_one_of_the_parent(tmp_path: Path) -> None:
    with opened(tmp_path, "", *arguments(4)) as world:
        assert world.process.process is not None
        pids = workers(world.process).values()
        for _ in range(3):
            os.killpg(world.process.process.pid, signal.SIGHUP)
        until(lambda: READ_AGAIN in world.process.log)
        assert httpx.get(f"{world.url}/health").json()["status"] == "healthy"
        assert not any(gone(pid) for pid in pids)
        assert births(world.process) == 4
        assert world.process.stop() == 0


def test_a_file_that_appears_at_its_usual_place_is_read(tmp_path: Path, count: int) -> None:
    home = {"XDG_CONFIG_HOME": str(tmp_path / "home"), "INFERXGATE_CONFIG": ""}
    with GatewayProcess(tmp_path, environment=home, arguments=arguments(count)) as process:
        place = tmp_path / "home" / "inferxgate" / "config.toml"
        place.parent.mkdir(parents=True)
        place.write_text(ONE)
        until(lambda: f"{READ_AGAIN}providers +one" in process.log, process.log)
        place.unlink()
        until(lambda: f"{REFUSED}There is no configuration file {place} any more" in process.log, process.log)
        assert process.stop() == 0


@pytest.mark.parametrize("outlives", [False, True])
def test_a_terminal_that_is_closed_ends_it_unless_it_was_to_outlive_it(
    tmp_path: Path, count: int, outlives: bool
) -> None:
    prefix = ["nohup"] if outlives else []
    environment = CommandLine(tmp_path).environment
    ours, theirs = os.openpty()
    with (tmp_path / "log").open("w+") as log:
        process = subprocess.Popen(
            [*prefix, *program(), "serve", "--port", "0", *arguments(count)],
            env=environment,
            stdin=theirs,
            stdout=subprocess.DEVNULL,
            stderr=log,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(theirs, termios.TIOCSCTTY, 0),  # noqa: PLW1509 - to have it as its own
        )
        os.close(theirs)

        def said(words: str) -> bool:
            return words in Path(log.name).read_text()

        try:
            until(lambda: said("There is no key yet"))
            os.close(ours)
            if outlives:
                until(lambda: said(READ_AGAIN))
                assert process.poll() is None
                process.send_signal(signal.SIGTERM)
            assert process.wait(60) == 0
            assert said("stopped")
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
