"""What Prometheus reads.

Names beginning with ``llm_gateway_`` are those of earlier releases of InferXgate, so that dashboards survive. Callers
choose model names, so the number of models with labels of their own is bounded.
"""

from __future__ import annotations

from collections.abc import Callable
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

from inferxgate.canonical.usage import BUCKETS
from inferxgate.catalog.pricing import NANOS_PER_DOLLAR

if TYPE_CHECKING:
    from inferxgate.store.records import UsageRecord

# They are a second series for each counter and histogram, which nobody reads.
disable_created_metrics()  # type: ignore[no-untyped-call]  # the package has not annotated it

_DURATION_BUCKETS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 30, 60, 120, 300, 600, 1800)
"""Seconds: calls to models take from a blink to half an hour."""
_HTTP_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5, 30, 300)
_MAX_MODELS = 200
"""Models with a label of their own; the rest share ``other``."""


class _Series:
    """The children of one model's metrics, looked up once: label lookups are dear on the hot path."""

    __slots__ = ("cost", "duration", "first_token", "requests", "tokens", "unpriced")

    def __init__(self, metrics: Metrics, model: str, provider: str) -> None:
        self.requests: dict[str, Counter] = {}
        self.tokens = {
            bucket: metrics.tokens.labels(model, provider, bucket.removesuffix("_tokens")) for bucket in BUCKETS
        }
        self.cost = metrics.cost.labels(model, provider)
        self.unpriced = metrics.unpriced.labels(model, provider)
        self.duration = metrics.duration.labels(model, provider)
        self.first_token = metrics.first_token.labels(model, provider)


class Metrics:
    """The metrics of this process, in a registry of their own."""

    content_type = CONTENT_TYPE_LATEST

    def __init__(self) -> None:
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
        self.active = Gauge("llm_gateway_active_requests", "Completions under way.", ("provider",), registry=registry)
        self.refusals = Counter(
            "llm_gateway_refusals", "Completions refused before a provider was asked.", ("reason",), registry=registry
        )
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
        self._ledger_waiting = Gauge(
            "llm_gateway_ledger_waiting_bytes", "Journal bytes that the store has not taken yet.", registry=registry
        )
        self._store_errors = Counter(
            "llm_gateway_store_errors", "Failed writes of the ledger to the store.", registry=registry
        )
        self._series: dict[tuple[str, str], _Series] = {}
        self._http: dict[tuple[str, str, int], Counter] = {}
        self._http_times: dict[str, Histogram] = {}

    def watch_ledger(self, waiting_bytes: Callable[[], float]) -> None:
        """Read the ledger's backlog whenever metrics are asked for."""
        self._ledger_waiting.set_function(waiting_bytes)

    def store_failed(self) -> None:
        """The ledger could not write to the store and will try again."""
        self._store_errors.inc()

    def budget_alert(self, kind: Literal["key", "user"], threshold: float) -> None:
        """A budget of which this share has been spent."""

    def completed(self, record: UsageRecord) -> None:
        """Count one admitted completion at its end."""
        series = self._series_of(record.model, record.provider)
        counter = series.requests.get(record.status)
        if counter is None:
            model, provider = self._labels(record.model, record.provider)
            counter = series.requests[record.status] = self.requests.labels(model, provider, record.status)
        counter.inc()
        for bucket in BUCKETS:
            if count := getattr(record.usage, bucket):
                series.tokens[bucket].inc(count)
        if record.cost_nanos is None:
            series.unpriced.inc()
        elif record.cost_nanos:
            series.cost.inc(record.cost_nanos / NANOS_PER_DOLLAR)
        series.duration.observe(record.duration_ms / 1000)
        if record.first_token_ms is not None:
            series.first_token.observe(record.first_token_ms / 1000)

    def http_request(self, route: str, method: str, status: int, seconds: float) -> None:
        """Count one HTTP answer; ``route`` is a route's pattern or ``other``, ``method`` a known one or ``other``."""
        key = (route, method, status)
        counter = self._http.get(key)
        if counter is None:
            counter = self._http[key] = self._http_requests.labels(route, method, str(status))
        counter.inc()
        times = self._http_times.get(route)
        if times is None:
            times = self._http_times[route] = self._http_duration.labels(route)
        times.observe(seconds)

    def render(self) -> bytes:
        """All metrics in Prometheus' text format."""
        return generate_latest(self._registry)

    def _series_of(self, model: str, provider: str) -> _Series:
        series = self._series.get((model, provider))
        if series is None:
            labels = self._labels(model, provider)
            series = self._series.get(labels)
            if series is None:
                series = self._series[labels] = _Series(self, *labels)
        return series

    def _labels(self, model: str, provider: str) -> tuple[str, str]:
        known = (model, provider) in self._series or len(self._series) < _MAX_MODELS
        return (model, provider) if known else ("other", provider)
