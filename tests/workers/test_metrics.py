"""What Prometheus reads: the right counts, a bounded number of series, and one sum over several processes.

The package keeps one kind of value for a whole process, so each worker of these tests is a process of its own.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from inferxgate.canonical.usage import Usage
from inferxgate.store.records import UsageRecord
from inferxgate.workers.metrics import Metrics
from inferxgate.workers.metrics_files import forget_living, metrics_folder, remove_dead

RECORD = UsageRecord(
    id="use_1",
    request_id="req_1",
    started_at_ms=1,
    status="ok",
    http_status=200,
    error_code=None,
    key_id="key_secret",
    user_id="user_secret",
    end_user="somebody",
    model_asked="fast",
    model="gpt-4o",
    provider="openai",
    stream=False,
    usage=Usage(input_tokens=10, cache_read_tokens=4, output_tokens=5),
    usage_source="provider",
    cost_nanos=2_000_000,
    price_version="v",
    first_token_ms=300,
    duration_ms=2_000,
)

WORKER = """
import sys
from dataclasses import replace
from pathlib import Path
from inferxgate.workers.metrics import Metrics
from inferxgate.workers.metrics_files import MetricsFiles
from tests.workers.test_metrics import RECORD
metrics = Metrics(MetricsFiles(Path(sys.argv[1]), int(sys.argv[2])))
"""


def worker(folder: Path, number: int, code: str) -> str:
    """Run a worker's life; what it printed."""
    done = subprocess.run(
        [sys.executable, "-c", WORKER + code, str(folder), str(number)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        cwd=Path(__file__).parents[2],
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def values(text: str) -> dict[str, float]:
    """Each series and its value."""
    return {
        series: float(value)
        for series, _, value in (line.rpartition(" ") for line in text.splitlines() if line and line[0] != "#")
    }


def rendered(metrics: Metrics) -> dict[str, float]:
    return values(metrics.render().decode())


def test_a_completion_is_counted_in_all_its_aspects() -> None:
    metrics = Metrics()
    metrics.completed(RECORD, 1.75, total_seconds=2.002)
    metrics.completed(replace(RECORD, status="provider_error", cost_nanos=None, first_token_ms=None, usage=Usage()))
    found = rendered(metrics)
    labels = 'model="gpt-4o",provider="openai"'
    assert found[f'llm_gateway_requests_total{{{labels},status="ok"}}'] == 1
    assert found[f'llm_gateway_requests_total{{{labels},status="provider_error"}}'] == 1
    tokens = {kind: count for kind, count in found.items() if kind.startswith("llm_gateway_tokens_total") and count}
    assert tokens == {
        f'llm_gateway_tokens_total{{{labels},token_type="input"}}': 10,
        f'llm_gateway_tokens_total{{{labels},token_type="cache_read"}}': 4,
        f'llm_gateway_tokens_total{{{labels},token_type="output"}}': 5,
    }
    assert found[f"llm_gateway_cost_usd_total{{{labels}}}"] == 0.002
    assert found[f"llm_gateway_unpriced_requests_total{{{labels}}}"] == 1
    assert found[f"llm_gateway_request_duration_seconds_sum{{{labels}}}"] == 4
    assert found[f"llm_gateway_first_token_seconds_count{{{labels}}}"] == 1
    assert found['llm_gateway_upstream_seconds_sum{provider="openai"}'] == 1.75
    assert found['llm_gateway_upstream_seconds_count{provider="openai"}'] == 1, "the other one was never asked"
    assert found['llm_gateway_overhead_seconds_sum{provider="openai"}'] == pytest.approx(0.252)
    assert not any("secret" in series or "somebody" in series for series in found)


def test_without_an_exact_duration_the_records_is_taken_and_overhead_is_never_negative() -> None:
    metrics = Metrics()
    metrics.completed(RECORD, 1.5)
    metrics.completed(RECORD, 2.0004)
    assert rendered(metrics)['llm_gateway_overhead_seconds_sum{provider="openai"}'] == 0.5


def test_limits_and_alerts_are_counted_by_their_kind() -> None:
    metrics = Metrics()
    metrics.limit_hit("key", "requests")
    metrics.limit_hit("user", "budget")
    metrics.limit_hit("user", "budget")
    metrics.budget_alert("key", 0.8)
    metrics.budget_alert("key", 1)
    found = rendered(metrics)
    assert found['llm_gateway_limits_hit_total{limit="requests",scope="key"}'] == 1
    assert found['llm_gateway_limits_hit_total{limit="budget",scope="user"}'] == 2
    assert found['llm_gateway_budget_alerts_total{scope="key",threshold="0.8"}'] == 1
    assert found['llm_gateway_budget_alerts_total{scope="key",threshold="1"}'] == 1


def test_the_ledgers_backlog_is_read_when_it_is_asked_for() -> None:
    metrics = Metrics()
    waiting = [0, 0]
    metrics.watch_ledger(lambda: waiting[0], lambda: waiting[1])
    waiting[:] = 700, 2
    found = rendered(metrics)
    assert (found["llm_gateway_ledger_waiting_bytes"], found["llm_gateway_ledger_waiting_records"]) == (700, 2)


def test_parts_that_cannot_be_used_are_read_when_they_are_asked_for() -> None:
    metrics = Metrics()
    failures: dict[str, str | None] = {"store": None, "journal": None}
    metrics.watch_part("store", lambda: failures["store"])
    metrics.watch_part("journal", lambda: failures["journal"])
    degraded = 'llm_gateway_degraded{{part="{}"}}'.format
    assert (rendered(metrics)[degraded("store")], rendered(metrics)[degraded("journal")]) == (0, 0)
    failures["store"] = "it is locked"
    assert (rendered(metrics)[degraded("store")], rendered(metrics)[degraded("journal")]) == (1, 0)
    failures["store"] = None
    assert rendered(metrics)[degraded("store")] == 0


def test_queues_and_targets_are_read_each_second_and_not_by_whoever_asks() -> None:
    metrics = Metrics()
    waiting, unavailable = {"openai": 2, "": 3}, {("openai", "open"): 1}
    metrics.watch_queue(lambda: waiting)
    metrics.watch_targets(lambda: unavailable)
    assert not any("queue_waiting" in series for series in rendered(metrics)), "it may be asked by another thread"
    metrics.refresh()
    found = rendered(metrics)
    assert found['llm_gateway_queue_waiting{provider="openai"}'] == 2
    assert found['llm_gateway_queue_waiting{provider="*"}'] == 3
    assert found['llm_gateway_targets_unavailable{provider="openai",state="open"}'] == 1
    waiting.clear()
    unavailable.clear()
    unavailable["openai", "cooling"] = 1
    metrics.refresh()
    found = rendered(metrics)
    assert found['llm_gateway_queue_waiting{provider="openai"}'] == 0
    assert found['llm_gateway_targets_unavailable{provider="openai",state="open"}'] == 0
    assert found['llm_gateway_targets_unavailable{provider="openai",state="cooling"}'] == 1


def test_models_that_clients_make_up_share_a_label() -> None:
    metrics = Metrics()
    for number in range(500):
        metrics.completed(replace(RECORD, model=f"model-{number}"))
    metrics.completed(replace(RECORD, model="m" * 5_000))
    found = {series: count for series, count in rendered(metrics).items() if "requests_total" in series}
    assert sum(found.values()) == 501
    assert len([series for series in found if series.startswith("llm_gateway_requests_total")]) == 201
    assert max(map(len, found)) < 300


def test_one_worker_counts_in_memory_whatever_the_environment_says(tmp_path: Path) -> None:
    code = (
        "from inferxgate.workers.metrics import Metrics\n"
        "metrics = Metrics()\nmetrics.store_failed('store', 'full')\nprint(metrics.render())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"PROMETHEUS_MULTIPROC_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
        cwd=Path(__file__).parents[2],
    )
    assert 'llm_gateway_store_errors_total{cause="full",part="store"} 1.0' in done.stdout
    assert list(tmp_path.iterdir()) == []


# --- over several processes


def test_the_sum_is_that_of_all_workers_and_outlives_them(tmp_path: Path) -> None:
    count = "for _ in range({times}): metrics.completed(RECORD, 1.0, total_seconds=1.5)\nmetrics.tell()\n"
    life = count + "metrics.active.labels('openai').inc(); metrics.store_failed('store', 'locked'); "
    life += "metrics.limit_hit('key', 'tokens')\n"
    worker(tmp_path, 1, life.format(times=3))
    worker(tmp_path, 2, life.format(times=4))
    files = {path.name for path in tmp_path.iterdir()}
    forget_living(tmp_path, 2)
    worker(tmp_path, 2, count.format(times=5))
    assert {path.name for path in tmp_path.iterdir()} == files, "a replacement takes over its predecessor's files"
    found = values(worker(tmp_path, 3, "print(metrics.render().decode())"))
    labels = 'model="gpt-4o",provider="openai"'
    assert found[f'llm_gateway_requests_total{{{labels},status="ok"}}'] == 12
    assert found[f'llm_gateway_tokens_total{{{labels},token_type="input"}}'] == 120
    assert found[f"llm_gateway_request_duration_seconds_count{{{labels}}}"] == 12
    assert found[f'llm_gateway_request_duration_seconds_bucket{{le="+Inf",{labels}}}'] == 12
    assert found['llm_gateway_overhead_seconds_sum{provider="openai"}'] == 6
    assert found['llm_gateway_store_errors_total{cause="locked",part="store"}'] == 2
    assert found['llm_gateway_active_requests{provider="openai"}'] == 1, "only the first worker is taken for alive"


def test_the_same_names_with_one_worker_and_with_several(tmp_path: Path) -> None:
    life = (
        "metrics.completed(RECORD, 1.0); metrics.http_request('/x', 'GET', 200, 0.1); print(metrics.render().decode())"
    )
    alone = Metrics()
    alone.completed(RECORD, 1.0)
    alone.http_request("/x", "GET", 200, 0.1)

    shared = worker(tmp_path, 1, life)
    assert values(shared) == rendered(alone)
    told = {line for line in shared.splitlines() if line.startswith("#")}
    assert len(told) > 20
    assert told <= set(alone.render().decode().splitlines()), "types and help are the same as well"


def test_the_files_have_no_holes_however_many_series_there_are(tmp_path: Path) -> None:
    """A write into a hole of a mapped file ends the process where the disk is full."""
    life = """
for number in range(300):
    metrics.completed(replace(RECORD, model=f"{number:_>100}"), 1.0)
"""
    worker(tmp_path, 1, life)
    sizes = {path.name: path.stat() for path in tmp_path.iterdir()}
    assert sizes["histogram_1.db"].st_size > 1024 * 1024, "they have grown"
    assert all(found.st_blocks * 512 >= found.st_size for found in sizes.values())


def test_what_all_workers_see_is_not_added_up_and_what_each_has_is(tmp_path: Path) -> None:
    life = """
metrics.watch_queue(lambda: {"openai": 2})
metrics.watch_targets(lambda: {("openai", "open"): 3})
metrics.attempt_failed("openai", "upstream_error")
metrics.tried_again("openai")
metrics.refresh()
print(metrics.render().decode())
"""
    worker(tmp_path, 1, life)
    found = values(worker(tmp_path, 2, life))
    assert found['llm_gateway_targets_unavailable{provider="openai",state="open"}'] == 3
    assert found['llm_gateway_queue_waiting{provider="openai"}'] == 4
    assert found['llm_gateway_attempt_failures_total{code="upstream_error",provider="openai"}'] == 2
    assert found['llm_gateway_retries_total{provider="openai"}'] == 2
    forget_living(tmp_path, 1)
    forget_living(tmp_path, 2)
    left = values(worker(tmp_path, 3, "print(metrics.render().decode())"))
    assert not any(series.startswith(("llm_gateway_targets", "llm_gateway_queue")) for series in left)


def test_a_full_disk_costs_new_labels_and_nothing_else(tmp_path: Path) -> None:
    life = """
import json, resource
metrics.completed(RECORD, 1.0)
largest = max(path.stat().st_size for path in Path(sys.argv[1]).iterdir())
resource.setrlimit(resource.RLIMIT_FSIZE, (largest, resource.RLIM_INFINITY))
for number in range(150):
    metrics.completed(replace(RECORD, model=f"{number:_>100}"))
    metrics.http_request(f"/{number}", "GET", 200, 0.1)
print(metrics.render().decode())
"""
    found = values(worker(tmp_path, 1, life))
    counts = [count for series, count in found.items() if series.startswith("llm_gateway_requests_total")]
    assert sum(counts) == 151, "every completion is counted, be it without its model's name"
    assert found['llm_gateway_requests_total{model="other",provider="openai",status="ok"}'] > 0
    assert all(path.stat().st_size <= 1024 * 1024 for path in tmp_path.iterdir())


def test_a_replacement_needs_no_room_on_the_disk(tmp_path: Path) -> None:
    worker(tmp_path, 1, "metrics.completed(RECORD, 1.0); metrics.active.labels('openai').inc()")
    forget_living(tmp_path, 1)
    forget_living(tmp_path, 2)  # which has not come as far as to have any
    full = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))\n"
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            full + WORKER + "metrics.completed(RECORD); print(metrics.render().decode())",
            tmp_path,
            "1",
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
        cwd=Path(__file__).parents[2],
    )
    found = values(done.stdout)
    assert found['llm_gateway_requests_total{model="gpt-4o",provider="openai",status="ok"}'] == 2
    assert 'llm_gateway_active_requests{provider="openai"}' not in found


def test_what_runs_left_that_were_killed_is_removed_and_living_ones_stay(tmp_path: Path) -> None:
    dead = tmp_path / "metrics" / "run_dead"
    dead.mkdir(parents=True)
    (dead / "counter_1.db").write_bytes(b"x")
    with metrics_folder(tmp_path) as first:
        assert not dead.exists()
        with metrics_folder(tmp_path) as second:
            remove_dead(tmp_path)
            assert first.is_dir()
            assert second.is_dir()
            assert first != second
        assert not second.exists()
        assert first.is_dir()
    assert list((tmp_path / "metrics").iterdir()) == []


def test_what_is_shared_is_json_free_of_secrets(tmp_path: Path) -> None:
    worker(tmp_path, 1, "metrics.completed(RECORD, 1.0)")
    content = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert json.dumps("gpt-4o").encode() in content
    assert b"secret" not in content
