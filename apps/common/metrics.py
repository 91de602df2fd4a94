"""Prometheus metrics of a web service."""

import time

from flask import Flask, Response, g, request
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector

# Any caller can send a method of any name, and each name would be a series that is kept until the process ends.
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


def register_metrics(app: Flask, service: str) -> CollectorRegistry:
    """Count and time every request by route template, and serve ``/metrics``; returns the registry for more."""
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    seconds = Histogram(
        "staking_http_request_seconds",
        "Time to answer a request.",
        ("service", "method", "route", "status"),
        registry=registry,
    )
    refused = Counter(
        "staking_http_errors_total",
        "Answers of status 400 and above.",
        ("service", "route", "status"),
        registry=registry,
    )

    @app.before_request
    def start_clock() -> None:
        g.started_at = time.perf_counter()

    @app.after_request
    def stop_clock(response: Response) -> Response:
        route = request.url_rule.rule if request.url_rule else "unknown"
        started = g.get("started_at")
        if started is not None:
            elapsed = time.perf_counter() - started
            method = request.method if request.method in METHODS else "other"
            seconds.labels(service, method, route, response.status_code).observe(elapsed)
        if response.status_code >= 400:
            refused.labels(service, route, response.status_code).inc()
        return response

    @app.get("/metrics")
    def metrics() -> Response:
        return Response(generate_latest(registry), content_type=CONTENT_TYPE_LATEST)

    return registry
