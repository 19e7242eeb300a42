"""The event gateway: who may notify it, what counts as an upload, and how often it emits."""

import asyncio
import contextlib
import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.testclient import TestClient

from flows.debouncer import Debouncer
from flows.event_gateway import MAX_BODY_BYTES, make_app, uploads_in
from flows.events import ANSWERED, INBOX
from tests.servers import S3Server
from trashnet.settings import SECRET_HEADER, Settings
from trashnet.store import ObjectStore

SECRET = "a secret of many letters"
KEY = "inbox/bin07/2026-03-01/" + "a" * 64 + ".json"


def settings(server: S3Server | None = None, **values: Any) -> Settings:
    """A deployment whose store sends notifications, unless ``values`` change it."""
    given: dict[str, Any] = {
        "s3_endpoint": server.url if server else "http://127.0.0.1:1",
        "s3_access_key": server.access_key if server else "none",
        "s3_secret_key": server.secret_key if server else "none",
        "s3_notifies": True,
        "label_studio_url": "http://127.0.0.1:1",
        "label_studio_token": "none",
        "gateway_url": "http://127.0.0.1:1",
        "gateway_secret": SECRET,
    }
    return Settings(_env_file=None, **given | values)


class RecordedEvents:
    """Records the events instead of emitting them to Prefect."""

    def __init__(self) -> None:
        self.emitted: list[tuple[str, int]] = []
        self.down = 0

    async def emit(self, event: str, count: int) -> None:
        """Record an event; the first ``down`` calls raise."""
        if self.down:
            self.down -= 1
            raise ConnectionError("Prefect is down")
        self.emitted.append((event, count))


@pytest.fixture
def recorded() -> RecordedEvents:
    """No events yet."""
    return RecordedEvents()


@pytest.fixture
def client(recorded: RecordedEvents, monkeypatch: pytest.MonkeyPatch) -> Iterator[TestClient]:
    """An event gateway that waits for half a second of quiet."""
    monkeypatch.setattr(
        "flows.event_gateway.Debouncer", lambda emit: Debouncer(emit, quiet=0.5, max_wait=60.0)
    )
    with TestClient(make_app(settings(), recorded.emit)) as client:
        yield client


def notification(*keys: str, event: str = "s3:ObjectCreated:Put") -> bytes:
    """The notification that a store sends when these keys are created."""
    records = [
        {"eventName": event, "s3": {"bucket": {"name": "trashnet"}, "object": {"key": quote_plus(key)}}}
        for key in keys
    ]
    return json.dumps({"EventName": event, "Key": "trashnet/x", "Records": records}).encode()


@pytest.mark.parametrize(
    ("body", "count"),
    [
        (notification(KEY), 1),
        (notification(KEY, KEY.replace("bin07", "bin08")), 2),
        (notification(KEY, event="ObjectCreated:Put"), 1),  # Ceph, and AWS in its records
        (notification(KEY, event="s3:ObjectCreated:CompleteMultipartUpload"), 1),
        (notification(KEY.replace(".json", ".jpg")), 0),  # the sidecar comes last and is what counts
        (notification("frames/" + "a" * 64 + ".json"), 0),
        (notification(KEY, event="s3:ObjectRemoved:Delete"), 0),
        (notification("inbox/bin 07/2026-03-01/x+y.json"), 1),  # spaces and pluses are encoded
        (b'{"Service":"Amazon S3","Event":"s3:TestEvent"}', 0),
        (b"", 0),
        (b'{"Records": []}', 0),
    ],
)
def test_uploads_are_recognised_in_every_store_s_notifications(body: bytes, count: int) -> None:
    """Only a created sidecar under the inbox is an upload; the name of the event differs between stores."""
    assert uploads_in(body) == count


@pytest.mark.parametrize(
    "body", [b"not json", b"[]", b'{"Records": 1}', b'{"Records": [{}]}', b'{"Records": [null]}']
)
def test_a_body_that_is_no_notification_is_refused(client: TestClient, body: bytes) -> None:
    """The response is 400 and says what is wrong."""
    answer = client.post("/s3", content=body, headers={SECRET_HEADER: SECRET})
    assert answer.status_code == 400
    assert "not a notification" in answer.json()["error"]


@given(st.binary(max_size=200))
def test_no_bytes_break_the_parser(body: bytes) -> None:
    """Any body gives a count or a ``ValueError``."""
    with contextlib.suppress(ValueError):
        assert uploads_in(body) >= 0


@pytest.mark.parametrize("path", ["/s3", "/label-studio"])
@pytest.mark.parametrize(
    "headers", [{}, {SECRET_HEADER: "wrong"}, {"Authorization": "Bearer wrong"}, {SECRET_HEADER: ""}]
)
def test_a_request_without_the_secret_is_refused(
    client: TestClient, recorded: RecordedEvents, path: str, headers: dict[str, str]
) -> None:
    """The response is 401, and no event is emitted."""
    assert client.post(path, content=notification(KEY), headers=headers).status_code == 401
    assert recorded.emitted == []


@pytest.mark.parametrize("headers", [{SECRET_HEADER: SECRET}, {"Authorization": f"Bearer {SECRET}"}])
def test_the_secret_is_accepted_in_either_header(client: TestClient, headers: dict[str, str]) -> None:
    """Label Studio sends a header of our choice; a store sends a bearer token."""
    assert client.post("/s3", content=notification(KEY), headers=headers).status_code == 202


def test_a_body_that_is_too_large_is_not_read_to_its_end(client: TestClient) -> None:
    """The response to one byte too many is 413."""
    assert (
        client.post("/s3", content=b" " * MAX_BODY_BYTES, headers={SECRET_HEADER: SECRET}).status_code == 202
    )
    assert (
        client.post("/s3", content=b" " * (MAX_BODY_BYTES + 1), headers={SECRET_HEADER: SECRET}).status_code
        == 413
    )


def wait_until(client: TestClient, condition: Any, seconds: float = 10.0) -> None:
    """Let the event gateway's loop run until the condition holds."""
    assert client.portal is not None

    async def poll() -> None:
        for _ in range(int(seconds / 0.02)):
            if condition():
                return
            await asyncio.sleep(0.02)

    client.portal.call(poll)
    assert condition()


def test_a_thousand_uploads_emit_at_most_three_events(client: TestClient, recorded: RecordedEvents) -> None:
    """The counts of the events add up to a thousand: an event is emitted when no more uploads arrive."""
    for _ in range(100):
        client.post("/s3", content=notification(*[KEY] * 10), headers={SECRET_HEADER: SECRET})
    wait_until(client, lambda: sum(count for _, count in recorded.emitted) == 1000)
    assert len(recorded.emitted) <= 3
    assert {event for event, _ in recorded.emitted} == {INBOX}


def test_a_steady_stream_of_uploads_does_not_delay_an_event_for_ever(recorded: RecordedEvents) -> None:
    """The stream never pauses for ``quiet``, but no upload waits longer than ``max_wait``."""

    async def stream() -> None:
        debouncer = Debouncer(recorded.emit, quiet=10.0, max_wait=0.3)
        for _ in range(40):
            debouncer.notify(INBOX)
            await asyncio.sleep(0.02)
        await debouncer.close()

    asyncio.run(stream())
    assert 1 <= len(recorded.emitted) <= 3


def test_a_webhook_emits_an_event_for_annotations(client: TestClient, recorded: RecordedEvents) -> None:
    """Label Studio's payload is not read: the flow reads the annotations itself."""
    client.post("/label-studio", content=b"anything", headers={SECRET_HEADER: SECRET})
    wait_until(client, lambda: recorded.emitted == [(ANSWERED, 1)])


def test_an_event_that_prefect_did_not_accept_is_emitted_again(
    client: TestClient, recorded: RecordedEvents, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Prefect is down twice; the event arrives when it is back."""
    monkeypatch.setattr("flows.debouncer.RETRY_SECONDS", 0.05)
    recorded.down = 2
    client.post("/label-studio", headers={SECRET_HEADER: SECRET})
    wait_until(client, lambda: recorded.emitted == [(ANSWERED, 1)])


def test_the_inbox_of_a_store_without_notifications_is_watched(
    s3_server: S3Server, fresh_bucket: str, recorded: RecordedEvents, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An upload in a real store emits one event; the bucket may be created later than the gateway."""
    monkeypatch.setattr(
        "flows.event_gateway.Debouncer", lambda emit: Debouncer(emit, quiet=0.1, max_wait=1.0)
    )
    monkeypatch.setattr("flows.event_gateway.LOOK_SECONDS", 0.1)
    store = ObjectStore(s3_server.url, s3_server.access_key, s3_server.secret_key, fresh_bucket, "us-east-1")
    with TestClient(
        make_app(settings(s3_server, s3_notifies=False, s3_bucket=fresh_bucket), recorded.emit)
    ) as client:
        store.ensure_bucket()
        store.put(KEY.replace(".json", ".jpg"), b"jpeg")
        store.put(KEY, b"{}")
        wait_until(client, lambda: recorded.emitted == [(INBOX, 1)])
        store.put(KEY.replace("bin07", "bin08"), b"{}")
        wait_until(client, lambda: recorded.emitted == [(INBOX, 1), (INBOX, 1)])
