"""What a server tells Prometheus about itself. Not here: when it is asked (app.py)."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from endwise.serve.batching import Batcher

SECONDS = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30)
ROWS = (1, 2, 4, 8, 16, 32, 64, 128)


class Gauges:
    """Counts and times of one server."""

    def __init__(self) -> None:
        from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector

        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self.requests = Counter(
            "endwise_requests", "Answers to requests for predictions, by HTTP status.", ["status"],
            registry=self.registry,
        )  # fmt: skip
        self.latency = Histogram(
            "endwise_request_seconds", "From the first byte of a request to its answer, of those with one.",
            buckets=SECONDS, registry=self.registry,
        )  # fmt: skip
        self.batch = Histogram("endwise_batch_rows", "Rows in a batch.", buckets=ROWS, registry=self.registry)
        self.running = Histogram(
            "endwise_batch_seconds", "How long a batch took.", buckets=SECONDS, registry=self.registry
        )
        self.dropped = Counter(
            "endwise_dropped", "Requests that nobody waited for any more.", registry=self.registry
        )  # fmt: skip
        self.shed = Counter("endwise_shed", "Requests refused because the queue was full.", registry=self.registry)
        self.queue = Gauge("endwise_queue_depth", "Requests without an answer yet.", registry=self.registry)
        self.model = Gauge("endwise_model_info", "The model that answers.", ["model"], registry=self.registry)
        self.swaps = Counter(
            "endwise_reloads", "Times that another version took over, or failed to.", ["outcome"],
            registry=self.registry,
        )  # fmt: skip

        self.drift = Gauge(
            "endwise_drift", "How far an input of late lies from the training rows: population stability index.",
            ["input"], registry=self.registry,
        )  # fmt: skip

    def watch(self, batcher: "Batcher") -> None:
        """The queue's depth is looked up when it is asked for."""
        self.queue.set_function(lambda: batcher.waiting)

    def ran(self, rows: int, seconds: float) -> None:
        """A batch was answered."""
        self.batch.observe(rows)
        self.running.observe(seconds)

    def text(self) -> bytes:
        """The page for Prometheus."""
        from prometheus_client import generate_latest

        return generate_latest(self.registry)
