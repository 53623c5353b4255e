"""Metrics of running servers, as Prometheus and Grafana export them: what they say of a workload, and what they cannot say."""

from kvplan.traces.prometheus.operations import Observed, observed
from kvplan.traces.prometheus.series import Series, read_series

__all__ = ["Observed", "Series", "observed", "read_series"]
