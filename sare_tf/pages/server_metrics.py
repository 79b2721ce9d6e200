"""What the server of `locate --serve` counts, as Prometheus reads it."""

from collections.abc import Callable

import prometheus_client as prometheus

CONTENT_TYPE = prometheus.CONTENT_TYPE_LATEST


class ServerMetrics:
    """Counts requests, batches and those that wait; `text` shows them.

    Args:
        waiting: returns how many photographs wait.
    """

    def __init__(self, waiting: Callable[[], int]):
        self._registry = prometheus.CollectorRegistry()
        self._requests = prometheus.Counter(
            "sare_tf_requests",
            "Requests by path and status code.",
            ["path", "code"],
            registry=self._registry,
        )
        self._seconds = prometheus.Histogram(
            "sare_tf_locate_seconds",
            "Seconds of a request for /locate that was answered.",
            registry=self._registry,
        )
        self._batch = prometheus.Histogram(
            "sare_tf_batch_photographs",
            "Photographs that were answered together.",
            buckets=(1, 2, 4, 8, 16, 32),
            registry=self._registry,
        )
        self._batch_seconds = prometheus.Histogram(
            "sare_tf_batch_seconds",
            "Seconds of a batch: decoding, model and search.",
            registry=self._registry,
        )
        prometheus.Gauge(
            "sare_tf_waiting",
            "Photographs that wait for an answer.",
            registry=self._registry,
        ).set_function(waiting)
        # Memory, processor time and open files of this process.
        prometheus.ProcessCollector(registry=self._registry)

    def request(self, path: str, code: int, seconds: float) -> None:
        """Counts a request.

        Args:
            path: of a route of the server.
            code: of the answer.
            seconds: it took.
        """
        self._requests.labels(path, str(code)).inc()
        if path == "/locate" and code == 200:
            self._seconds.observe(seconds)

    def batch(self, count: int, seconds: float) -> None:
        """Counts a batch of photographs."""
        self._batch.observe(count)
        self._batch_seconds.observe(seconds)

    def text(self) -> bytes:
        """Returns everything in Prometheus' format."""
        return prometheus.generate_latest(self._registry)
