"""What Prometheus reads.

Names beginning with ``llm_gateway_`` are those of earlier releases of InferXgate, so that dashboards survive. Callers
choose model names, so the number of models with labels of their own is bounded, and no label names a key or a user.

A gateway of one process counts in its memory. Of several, each counts in files that all of them can read, and whichever
is asked adds them up (``metrics_files``). What every request moves is first added up in plain numbers and told to the
package a few times a second: a worker that is killed takes the metrics of its last moment with it (no usage record).
"""

from __future__ import annotations

import threading
import time
from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Literal

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from inferxgate.canonical.usage import BUCKETS, amounts
from inferxgate.catalog.pricing import NANOS_PER_DOLLAR
from inferxgate.errors import StoreCause
from inferxgate.workers.metrics_files import MetricsFiles, own_values

if TYPE_CHECKING:
    from inferxgate.store.records import Status, UsageRecord

# They are a second series for each counter and histogram, which nobody reads.
disable_created_metrics()  # type: ignore[no-untyped-call]  # the package has not annotated it

_DURATION_BUCKETS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 30, 60, 120, 300, 600, 1800)
"""Seconds: calls to models take from a blink to half an hour."""
_HTTP_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5, 30, 300)
_OVERHEAD_BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1, 5)
_MAX_MODELS = 200
"""Models with a label of their own; the rest share ``other``."""
_TELL_EVERY_SECONDS = 0.1
"""How often, at most, what was counted is told to the package: each of its counters is a call, a lock and more."""
_WHOLE = "*"
"""The label of what concerns all providers."""
_MAX_MODEL_NAME = 100
"""Characters of a model's name in a label; the rest is cut off."""

Scope = Literal["key", "user"]
Limit = Literal["requests", "tokens", "parallel", "budget"]


class _Count:
    """What one counter's child is to be told of."""

    __slots__ = ("_child", "number")

    def __init__(self, child: Counter) -> None:
        self._child = child
        self.number = 0

    def tell(self) -> None:
        self._child.inc(self.number)
        self.number = 0


class _Times:
    """What one histogram's child is to be told of: counted here at a fraction of the package's price."""

    __slots__ = ("_bounds", "_child", "_counts", "_seconds")

    def __init__(self, child: Histogram, bounds: Sequence[float]) -> None:
        """``bounds`` are the child's own."""
        self._child = child
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._seconds = 0.0

    def observe(self, seconds: float) -> None:
        self._counts[bisect_left(self._bounds, seconds)] += 1
        self._seconds += seconds

    def tell(self) -> None:
        for bucket, count in zip(self._child._buckets, self._counts, strict=True):
            if count:
                bucket.inc(count)
        self._child._sum.inc(self._seconds)
        self._counts = [0] * len(self._counts)
        self._seconds = 0.0


class _Series:
    """What one model's metrics are to be told of. Children are looked up once: that is dear on the hot path."""

    __slots__ = (
        *("_cost", "_cost_nanos", "_duration", "_first_token", "_labels", "_metrics"),
        *("_requests", "_tokens", "_unpriced"),
    )

    def __init__(self, metrics: Metrics, model: str, provider: str) -> None:
        self._metrics = metrics
        self._labels = model, provider
        self._requests: dict[Status, _Count] = {}
        self._tokens = {
            bucket: _Count(metrics.tokens.labels(model, provider, bucket.removesuffix("_tokens"))) for bucket in BUCKETS
        }
        self._unpriced = _Count(metrics.unpriced.labels(model, provider))
        self._duration = _Times(metrics.duration.labels(model, provider), _DURATION_BUCKETS)
        self._first_token = _Times(metrics.first_token.labels(model, provider), _DURATION_BUCKETS)
        self._cost = metrics.cost.labels(model, provider)
        self._cost_nanos = 0

    def count(self, record: UsageRecord) -> None:
        requests = self._requests.get(record.status)
        if requests is None:
            child = self._metrics.requests.labels(*self._labels, record.status)
            requests = self._requests[record.status] = _Count(child)
        requests.number += 1
        for tokens, number in zip(self._tokens.values(), amounts(record.usage), strict=True):
            if number:
                tokens.number += number
        if record.cost_nanos is None:
            self._unpriced.number += 1
        else:
            self._cost_nanos += record.cost_nanos
        self._duration.observe(record.duration_ms / 1000)
        if record.first_token_ms is not None:
            self._first_token.observe(record.first_token_ms / 1000)

    def tell(self) -> None:
        for count in (*self._requests.values(), *self._tokens.values(), self._unpriced):
            if count.number:
                count.tell()
        if self._cost_nanos:
            self._cost.inc(self._cost_nanos / NANOS_PER_DOLLAR)
            self._cost_nanos = 0
        self._duration.tell()
        self._first_token.tell()


class _Provider:
    """What one provider's metrics are to be told of."""

    __slots__ = ("_gauge", "_told", "active", "overhead", "upstream")

    def __init__(self, metrics: Metrics, provider: str) -> None:
        self._gauge = metrics.active.labels(provider)
        self.active = self._told = 0
        """Completions that it is at now, and was when that was last told."""
        self.upstream = _Times(metrics.upstream.labels(provider), _DURATION_BUCKETS)
        self.overhead = _Times(metrics.overhead.labels(provider), _OVERHEAD_BUCKETS)

    def tell_active(self) -> None:
        if self.active != self._told:
            self._told = self.active
            self._gauge.set(self._told)

    def tell(self) -> None:
        self.upstream.tell()
        self.overhead.tell()


class Metrics:
    """The metrics of this process, and, where it is one of several workers, the sum of all of theirs."""

    content_type = CONTENT_TYPE_LATEST

    def __init__(self, files: MetricsFiles | None = None) -> None:
        """``files`` are this worker's, where there are several. Raises ``StartError`` where they cannot be made."""
        self._files = files
        if files is None:
            own_values()
        else:
            files.begin()
        self._make_those_of_completions()
        self._make_those_of_attempts()
        self._make_those_of_the_server()
        self._series: dict[tuple[str, str], _Series] = {}
        self._providers: dict[str, _Provider] = {}
        self._http: dict[tuple[str, str, int], _Count] = {}
        self._http_times: dict[str, _Times] = {}
        self._untold: set[_Count | _Times | _Series | _Provider] = set()
        self._telling = threading.Lock()
        """Held around what has not been told: another thread may ask for it, and the ledger's counts what was lost."""
        self._next_telling = 0.0
        self._failures: dict[tuple[str, str], Counter] = {}
        self._waiting: tuple[Callable[[], float], Callable[[], float]] | None = None
        self._queue: Callable[[], Mapping[str, int]] | None = None
        self._targets: Callable[[], Mapping[tuple[str, str], int]] | None = None
        self._queued: dict[str, Gauge] = {}
        self._unavailable: dict[tuple[str, str], Gauge] = {}
        self._parts: dict[str, Callable[[], str | None]] = {}

    def _make_those_of_completions(self) -> None:
        registry = self._registry = CollectorRegistry()
        model_labels = ("model", "provider")
        self.requests = Counter(
            "llm_gateway_requests", "Admitted completions by their end.", (*model_labels, "status"), registry=registry
        )
        self.tokens = Counter(
            "llm_gateway_tokens", "Tokens by bucket.", (*model_labels, "token_type"), registry=registry
        )
        self.cost = Counter(
            "llm_gateway_cost_usd", "Dollars, where the price is known.", model_labels, registry=registry
        )
        self.unpriced = Counter(
            "llm_gateway_unpriced_requests", "Completions whose price is unknown.", model_labels, registry=registry
        )
        self.duration = Histogram(
            "llm_gateway_request_duration_seconds",
            "Seconds from a completion's admission to its end.",
            model_labels,
            buckets=_DURATION_BUCKETS,
            registry=registry,
        )
        self.first_token = Histogram(
            "llm_gateway_first_token_seconds",
            "Seconds from a completion's admission to the first token of its answer.",
            model_labels,
            buckets=_DURATION_BUCKETS,
            registry=registry,
        )
        self.upstream = Histogram(
            "llm_gateway_upstream_seconds",
            "Seconds of a completion spent waiting for its provider.",
            ("provider",),
            buckets=_DURATION_BUCKETS,
            registry=registry,
        )
        self.overhead = Histogram(
            "llm_gateway_overhead_seconds",
            "Seconds of a completion not spent waiting for its provider.",
            ("provider",),
            buckets=_OVERHEAD_BUCKETS,
            registry=registry,
        )
        self.active = Gauge(
            "llm_gateway_active_requests",
            "Completions under way.",
            ("provider",),
            registry=registry,
            multiprocess_mode="livesum",
        )
        self.refusals = Counter(
            "llm_gateway_refusals", "Completions refused before a provider was asked.", ("reason",), registry=registry
        )
        self._limits_hit = Counter(
            "llm_gateway_limits_hit", "Completions refused by a limit.", ("limit", "scope"), registry=registry
        )
        self._budget_alerts = Counter(
            "llm_gateway_budget_alerts",
            "Times that a budget's use passed a threshold, as a share of the budget.",
            ("scope", "threshold"),
            registry=registry,
        )

    def _make_those_of_attempts(self) -> None:
        registry = self._registry
        self._attempt_failures = Counter(
            "llm_gateway_attempt_failures",
            "Requests to providers that failed, those included that were followed by another.",
            ("provider", "code"),
            registry=registry,
        )
        self._retries = Counter(
            "llm_gateway_retries",
            "Requests to providers beyond the first of a completion.",
            ("provider",),
            registry=registry,
        )
        self._queue_waiting = Gauge(
            "llm_gateway_queue_waiting",
            "Completions that wait for a place below the bound of a provider, or (*) of the gateway.",
            ("provider",),
            registry=registry,
            multiprocess_mode="livesum",
        )
        self._targets_unavailable = Gauge(
            "llm_gateway_targets_unavailable",
            "Targets and credentials that are left alone now: open, cooling or set_aside.",
            ("provider", "state"),
            registry=registry,
            multiprocess_mode="livemax",  # all workers see the same ones
        )

    def _make_those_of_the_server(self) -> None:
        registry = self._registry
        self._http_requests = Counter(
            "llm_gateway_http_requests", "HTTP answers.", ("route", "method", "status"), registry=registry
        )
        self._http_duration = Histogram(
            "llm_gateway_http_request_duration_seconds",
            "Seconds from an HTTP request's headers to the end of its answer.",
            ("route",),
            buckets=_HTTP_BUCKETS,
            registry=registry,
        )
        self._waiting_bytes = Gauge(
            "llm_gateway_ledger_waiting_bytes",
            "Journal bytes that the store has not taken yet.",
            registry=registry,
            multiprocess_mode="livesum",
        )
        self._waiting_records = Gauge(
            "llm_gateway_ledger_waiting_records",
            "Usage records that the store has not taken yet.",
            registry=registry,
            multiprocess_mode="livesum",
        )
        self._store_errors = Counter(
            "llm_gateway_store_errors",
            "Failed attempts to write usage records or to set space aside for them, by where and why.",
            ("part", "cause"),
            registry=registry,
        )
        self._degraded = Gauge(
            "llm_gateway_degraded",
            "Workers that cannot use a part now: credentials, store, journal or limits.",
            ("part",),
            registry=registry,
            multiprocess_mode="livesum",
        )

    def watch_ledger(self, waiting_bytes: Callable[[], float], waiting_records: Callable[[], float]) -> None:
        """Where ``refresh`` reads the ledger's backlog."""
        self._waiting = waiting_bytes, waiting_records

    def watch_part(self, part: str, failure: Callable[[], str | None]) -> None:
        """Where ``refresh`` reads why a part cannot be used now; None while it can. Parts are few."""
        self._parts[part] = failure

    def watch_queue(self, waiting: Callable[[], Mapping[str, int]]) -> None:
        """Where ``refresh`` reads how many wait for a place, by provider; under the empty name, for one in all."""
        self._queue = waiting

    def watch_targets(self, unavailable: Callable[[], Mapping[tuple[str, str], int]]) -> None:
        """Where ``refresh`` reads how many targets are left alone now, by provider and state."""
        self._targets = unavailable

    def refresh(self) -> None:
        """Bring the gauges up to date that nothing else moves, so that other workers do not tell of a past long gone.

        To be called about once a second, by the thread in which requests are handled.
        """
        self.tell()
        self._refresh_parts()
        if self._queue is not None:
            waiting = {name or _WHOLE: number for name, number in self._queue().items()}
            for name in self._queued.keys() | waiting.keys():
                gauge = self._queued.get(name)
                if gauge is None:
                    gauge = self._queued[name] = self._queue_waiting.labels(name)
                gauge.set(waiting.get(name, 0))
        if self._targets is not None:
            unavailable = self._targets()
            for labels in self._unavailable.keys() | unavailable.keys():
                gauge = self._unavailable.get(labels)
                if gauge is None:
                    if not self._have_room():
                        continue
                    gauge = self._unavailable[labels] = self._targets_unavailable.labels(*labels)
                gauge.set(unavailable.get(labels, 0))

    def _refresh_parts(self) -> None:
        """What any thread may read."""
        if self._waiting is not None:
            waiting_bytes, waiting_records = self._waiting
            self._waiting_bytes.set(waiting_bytes())
            self._waiting_records.set(waiting_records())
        for part, failure in self._parts.items():
            self._degraded.labels(part).set(0 if failure() is None else 1)

    def attempt_failed(self, provider: str, code: str) -> None:
        """A request to a provider failed. ``code`` is that of one of our kinds of errors: they are few."""
        counter = self._failures.get((provider, code))
        if counter is None:
            if not self._have_room():
                return
            counter = self._failures[provider, code] = self._attempt_failures.labels(provider, code)
        counter.inc()

    def tried_again(self, provider: str) -> None:
        """A completion is sent to a provider, and was sent to one before."""
        self._retries.labels(provider).inc()

    def limit_hit(self, scope: Scope, limit: Limit) -> None:
        """A completion was refused by a limit of its key or of its key's user."""
        self._limits_hit.labels(limit, scope).inc()

    def budget_alert(self, scope: Scope, threshold: float) -> None:
        """The use of a budget has passed a threshold, a share of the budget such as 0.8."""
        self._budget_alerts.labels(scope, f"{threshold:g}").inc()

    def store_failed(self, part: Literal["store", "journal"], cause: StoreCause) -> None:
        """The ledger could not write and will try again."""
        self._store_errors.labels(part, cause).inc()

    def completed(
        self, record: UsageRecord, waited_seconds: float | None = None, *, total_seconds: float | None = None
    ) -> None:
        """Count one admitted completion at its end.

        ``waited_seconds`` were spent waiting for the provider; None where it was not asked. ``total_seconds`` is the
        record's duration without its rounding to milliseconds, for the difference of the two.
        """
        with self._telling:
            series = self._series_of(record.model, record.provider)
            series.count(record)
            self._untold.add(series)
            if waited_seconds is not None:
                total = record.duration_ms / 1000 if total_seconds is None else total_seconds
                provider = self._provider(record.provider)
                provider.upstream.observe(waited_seconds)
                provider.overhead.observe(max(0.0, total - waited_seconds))
                self._untold.add(provider)
            self._tell_now_and_then()

    def http_request(self, route: str, method: str, status: int, seconds: float) -> None:
        """Count one HTTP answer; ``route`` is a route's pattern or ``other``, ``method`` a known one or ``other``."""
        key = (route, method, status)
        with self._telling:
            count = self._http.get(key)
            if count is None:
                if not self._have_room():
                    return
                count = self._http[key] = _Count(self._http_requests.labels(route, method, str(status)))
            count.number += 1
            times = self._http_times.get(route)
            if times is None:
                times = self._http_times[route] = _Times(self._http_duration.labels(route), _HTTP_BUCKETS)
            times.observe(seconds)
            self._untold.update((count, times))
            self._tell_now_and_then()

    def _tell_now_and_then(self) -> None:
        """Keep what other workers are asked for up to date; the lock is held."""
        now = time.monotonic()
        if now >= self._next_telling:
            self._next_telling = now + _TELL_EVERY_SECONDS
            self._tell()

    def _tell(self) -> None:
        """Tell the package what was counted since the last time; the lock is held."""
        for each in self._untold:
            each.tell()
        self._untold.clear()
        for provider in tuple(self._providers.values()):
            provider.tell_active()

    def tell(self) -> None:
        """Let the other workers know of everything that was counted until now; to be called before the process ends."""
        with self._telling:
            self._tell()

    def render(self) -> bytes:
        """All metrics of all workers in Prometheus' text format; of the others, maybe without their last second."""
        self.tell()
        self._refresh_parts()
        return generate_latest(self._registry if self._files is None else self._files.registry())

    def began(self, provider: str) -> None:
        """A completion is sent to a provider, which is at it until ``ended``. Both for one thread alone."""
        if provider not in self._providers:
            with self._telling:  # another thread may be about to make it
                self._provider(provider)
        self._providers[provider].active += 1

    def ended(self, provider: str) -> None:
        """See ``began``."""
        self._providers[provider].active -= 1

    def _provider(self, name: str) -> _Provider:
        """Providers are those of the configuration, so their number needs no bound."""
        provider = self._providers.get(name)
        if provider is None:
            provider = self._providers[name] = _Provider(self, name)
        return provider

    def _series_of(self, model: str, provider: str) -> _Series:
        series = self._series.get((model, provider))
        if series is None:
            labels = self._labels(model, provider)
            series = self._series.get(labels)
            if series is None:
                series = self._series[labels] = _Series(self, *labels)
        return series

    def _labels(self, model: str, provider: str) -> tuple[str, str]:
        model = model[:_MAX_MODEL_NAME]
        if (model, provider) in self._series:
            return model, provider
        if len(self._series) < _MAX_MODELS and self._have_room():
            return model, provider
        return "other", provider

    def _have_room(self) -> bool:
        """Whether there may be new series: not where they are kept in files and the disk is full."""
        return self._files is None or self._files.have_room()
