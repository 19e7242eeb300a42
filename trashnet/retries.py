"""Retries with backoff and jitter: stamina's, with one rule for all of how a retry is logged.

Where structlog is installed, stamina would log through it, to standard output, and with the arguments of the
call: a picture's bytes, for instance.
"""

from stamina import retry, retry_context
from stamina.instrumentation import LoggingOnRetryHook, PrometheusOnRetryHook, set_on_retry_hooks

__all__ = ["retry", "retry_context"]

set_on_retry_hooks((PrometheusOnRetryHook, LoggingOnRetryHook))
