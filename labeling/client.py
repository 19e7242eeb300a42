"""Label Studio's SDK client, with patience for faults that pass and plain words for those that do not."""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

import httpx
import stamina
from label_studio_sdk import LabelStudio
from label_studio_sdk.core.api_error import ApiError

from trashnet.errors import UserError
from trashnet.settings import Settings

PATIENCE = 90.0  # seconds that a restart of Label Studio may take before a run gives up; the next run takes up where it stopped
LONGEST_WAIT = 5.0  # seconds between two tries
CONNECT_SECONDS, ANSWER_SECONDS = 5.0, 120.0  # an import of many tasks is one request

TOKENS = "/user/account/personal-access-token"

T = TypeVar("T")


class LabelStudioDown(UserError):
    """Label Studio does not answer, or with faults of its own, for longer than one should wait."""


class Client(LabelStudio):
    """The SDK's client; :meth:`ask` is how requests are made that should survive a restart of the server."""

    def __init__(self, url: str, token: str, patience: float = PATIENCE) -> None:
        """``url`` without a path; ``token``: a personal access token or a legacy one. Nothing is sent yet."""
        self.url, self.patience = url.rstrip("/"), patience
        transport = httpx.Client(
            timeout=httpx.Timeout(ANSWER_SECONDS, connect=CONNECT_SECONDS), follow_redirects=True
        )
        with self._plainly():
            # The SDK leaves its constructor without types.
            super().__init__(  # type: ignore[no-untyped-call]
                base_url=self.url,
                api_key=token,
                max_retries=0,
                timeout=ANSWER_SECONDS,
                httpx_client=transport,
            )

    def __str__(self) -> str:
        return f"Label Studio at {self.url}"

    def ask(self, request: Callable[[], T]) -> T:
        """Call ``request`` until it succeeds. It must be one that may be repeated.

        Raises :class:`UserError` for a token that is not accepted and for a request that is refused, and
        :class:`LabelStudioDown` when patience ends.
        """
        again = stamina.retry(
            on=_passing, attempts=None, timeout=self.patience, wait_initial=0.2, wait_max=LONGEST_WAIT
        )(request)
        with self._plainly():
            return again()

    def tasks_page(
        self, project: int, query: Mapping[str, Any], *, page_size: int, answers: bool
    ) -> list[dict[str, Any]]:
        """The first tasks that match a data manager query, in its order, as Label Studio's JSON; with ``answers`` their annotations too."""
        params = {
            "project": project,
            "query": json.dumps(query, separators=(",", ":")),
            "page_size": page_size,
            "fields": "all" if answers else "task_only",
            "resolve_uri": "false",
        }
        # The SDK's own model of a task loses the type of some of its fields.
        reply = self._client_wrapper.httpx_client.request("api/tasks", method="GET", params=params)
        if not reply.is_success:
            raise ApiError(status_code=reply.status_code, body=reply.text)
        tasks: list[dict[str, Any]] = reply.json()["tasks"]
        return tasks

    @contextmanager
    def _plainly(self) -> Iterator[None]:
        try:
            yield
        except httpx.TransportError as error:
            raise LabelStudioDown(
                f"{self} does not answer ({type(error).__name__}). Is it up? See TRASHNET_LABEL_STUDIO_URL; nothing is lost, run again."
            ) from None
        except ApiError as error:
            if error.status_code in (401, 403):
                raise UserError(
                    f"{self} does not accept the token ({_detail(error)}). Make a new one at {self.url}{TOKENS} and set "
                    "TRASHNET_LABEL_STUDIO_TOKEN."
                ) from None
            if _passing(error):
                raise LabelStudioDown(
                    f"{self} answers {error.status_code}, for {self.patience:.0f} s now. Look at its log; nothing is lost, run again."
                ) from None
            raise UserError(f"{self} refused ({error.status_code}): {_detail(error)}") from None


def connect(settings: Settings, patience: float = PATIENCE) -> Client:
    """A client whose token Label Studio has accepted. ``patience``: seconds to wait for a server that is down or starting.

    Raises :class:`UserError` for a token that is expired or revoked, :class:`LabelStudioDown` if nothing
    answers.
    """
    client = Client(settings.label_studio_url, settings.label_studio_token.get_secret_value(), patience)
    client.ask(client.users.whoami)
    return client


def _passing(error: Exception) -> bool:
    """Whether the same request may well succeed in a moment."""
    if isinstance(error, ApiError):
        return error.status_code is None or error.status_code in (408, 429) or error.status_code >= 500
    return isinstance(error, httpx.TransportError)


def _detail(error: ApiError) -> str:
    body = error.body
    if isinstance(body, Mapping):
        body = body.get("validation_errors") or body.get("detail") or body
    return " ".join(str(body).split())[:500]
