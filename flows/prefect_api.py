"""Prefect's HTTP API by plain requests.

Importing Prefect takes seconds, and the embedded stack's supervisor and the operator's commands need its API
without that.
"""

from typing import Any

import httpx

from trashnet.retries import retry

REQUEST_TIMEOUT_SECONDS = 10.0
BUSY_TIMEOUT_SECONDS = 20.0  # in which a request that Prefect is too busy for is sent again


def open_api(url: str, auth: str | None = None) -> httpx.Client:
    """A client of Prefect's API; ``auth`` is ``user:password``."""
    user, colon, password = (auth or "").partition(":")
    credentials = (user, password) if colon else None
    return httpx.Client(base_url=url, auth=credentials, trust_env=False, timeout=REQUEST_TIMEOUT_SECONDS)


def post(api: httpx.Client, path: str, **body: Any) -> httpx.Response:
    """Send a POST request as :func:`send` does."""
    return send(api, "POST", path, body)


def _is_busy(error: Exception) -> bool:
    # Prefect answers 503 while its SQLite database is locked.
    return isinstance(error, httpx.HTTPStatusError) and error.response.status_code in {429, 502, 503}


@retry(on=_is_busy, attempts=None, timeout=BUSY_TIMEOUT_SECONDS)
def send(api: httpx.Client, method: str, path: str, body: dict[str, Any] | None = None) -> httpx.Response:
    """Send a request, again for up to 20 s while Prefect is too busy.

    Raises :class:`httpx.HTTPError` if it does not answer, or answers with an error.
    """
    response = api.request(method, path, json=body)
    response.raise_for_status()
    return response
