"""Label Studio's SDK client, which retries after transient faults and explains permanent ones."""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

import httpx
from label_studio_sdk import LabelStudio
from label_studio_sdk.core.api_error import ApiError

from trashnet.errors import UserError
from trashnet.retries import retry
from trashnet.settings import Settings

RETRY_SECONDS = 90.0  # a restart of Label Studio may take so long before a run gives up
MAX_WAIT_SECONDS = 5.0  # between two attempts
CONNECT_SECONDS, RESPONSE_SECONDS = 5.0, 120.0  # an import of many tasks is one request

TOKENS_PATH = "/user/account/personal-access-token"

T = TypeVar("T")


class LabelStudioUnavailable(UserError):
    """Label Studio does not answer, or with faults of its own, for longer than one should wait."""


class Client(LabelStudio):
    """The SDK's client; :meth:`with_retries` makes requests that survive a restart of the server."""

    def __init__(self, url: str, token: str, retry_seconds: float = RETRY_SECONDS) -> None:
        """``url`` without a path; ``token``: a personal access token or a legacy one. Nothing is sent yet."""
        self.url, self.retry_seconds = url.rstrip("/"), retry_seconds
        transport = httpx.Client(
            timeout=httpx.Timeout(RESPONSE_SECONDS, connect=CONNECT_SECONDS), follow_redirects=True
        )
        with self._plain_errors():
            # The SDK leaves its constructor without types.
            super().__init__(  # type: ignore[no-untyped-call]
                base_url=self.url,
                api_key=token,
                max_retries=0,
                timeout=RESPONSE_SECONDS,
                httpx_client=transport,
            )

    def __str__(self) -> str:
        return f"Label Studio at {self.url}"

    def with_retries(self, request: Callable[[], T]) -> T:
        """Call ``request`` until it succeeds. It must be one that may be repeated.

        Raises :class:`UserError` for a token that is not accepted and for a request that is refused, and
        :class:`LabelStudioUnavailable` when they go on for longer than ``retry_seconds``.
        """
        retried = retry(
            on=_is_transient,
            attempts=None,
            timeout=self.retry_seconds,
            wait_initial=0.2,
            wait_max=MAX_WAIT_SECONDS,
        )(request)
        with self._plain_errors():
            return retried()

    def list_tasks(
        self, project: int, query: Mapping[str, Any], *, page_size: int, with_annotations: bool
    ) -> list[dict[str, Any]]:
        """The first ``page_size`` tasks that match a data manager's query, as the API's JSON."""
        params = {
            "project": project,
            "query": json.dumps(query, separators=(",", ":")),
            "page_size": page_size,
            "fields": "all" if with_annotations else "task_only",
            "resolve_uri": "false",
        }
        # The SDK's own model of a task loses the type of some of its fields.
        reply = self._client_wrapper.httpx_client.request("api/tasks", method="GET", params=params)
        if not reply.is_success:
            raise ApiError(status_code=reply.status_code, body=reply.text)
        tasks: list[dict[str, Any]] = reply.json()["tasks"]
        return tasks

    @contextmanager
    def _plain_errors(self) -> Iterator[None]:
        try:
            yield
        except httpx.TransportError as error:
            raise LabelStudioUnavailable(
                f"{self} does not answer ({type(error).__name__}). Is it up? See TRASHNET_LABEL_STUDIO_URL; "
                "nothing is lost, run again."
            ) from None
        except ApiError as error:
            if error.status_code in (401, 403):
                raise UserError(
                    f"{self} does not accept the token ({_error_text(error)}). "
                    f"Make a new one at {self.url}{TOKENS_PATH} and set "
                    "TRASHNET_LABEL_STUDIO_TOKEN."
                ) from None
            if _is_transient(error):
                raise LabelStudioUnavailable(
                    f"{self} has answered {error.status_code} for {self.retry_seconds:.0f} s. See its log; "
                    "nothing is lost, run again."
                ) from None
            raise UserError(f"{self} refused ({error.status_code}): {_error_text(error)}") from None


def connect(settings: Settings, retry_seconds: float = RETRY_SECONDS) -> Client:
    """A client whose token Label Studio has accepted.

    ``retry_seconds`` is how long to wait for a server that is down or starting.

    Raises :class:`UserError` for a token that is expired or revoked, :class:`LabelStudioUnavailable` if
    nothing answers."""
    client = Client(settings.label_studio_url, settings.label_studio_token.get_secret_value(), retry_seconds)
    client.with_retries(client.users.whoami)
    return client


def _is_transient(error: Exception) -> bool:
    """Whether the same request may well succeed in a moment."""
    if isinstance(error, ApiError):
        return error.status_code is None or error.status_code in (408, 429) or error.status_code >= 500
    return isinstance(error, httpx.TransportError)


def _error_text(error: ApiError) -> str:
    body = error.body
    if isinstance(body, Mapping):
        body = body.get("validation_errors") or body.get("detail") or body
    return " ".join(str(body).split())[:500]
