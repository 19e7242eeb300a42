"""The adapter of the object store, on a real S3 server and on none."""

import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
import pytest
from minio.deleteobjects import DeleteError
from minio.error import S3Error

from operations.stack import find_free_port
from tests.servers import S3Server
from trashnet import store as store_module
from trashnet.store import NoSuchObject, ObjectStore, ObjectTooLarge, StoreDown


@pytest.fixture
def store(s3_server: S3Server, fresh_bucket: str) -> ObjectStore:
    """An empty bucket."""
    store = ObjectStore(s3_server.url, s3_server.access_key, s3_server.secret_key, fresh_bucket, "us-east-1")
    store.ensure_bucket()
    return store


def test_an_object_comes_back_as_it_was_put(store: ObjectStore) -> None:
    """Bytes, size and key; making the bucket again changes nothing."""
    store.put("frames/a.jpg", b"\x00\xff" * 500)
    store.ensure_bucket()
    assert store.get("frames/a.jpg") == b"\x00\xff" * 500
    found = store.stat("frames/a.jpg")
    assert found is not None
    assert (found.key, found.size) == ("frames/a.jpg", 1000)


def test_an_object_that_is_not_there_is_told_apart_from_a_store_that_is_down(store: ObjectStore) -> None:
    """`get` raises, `stat` returns None, `remove` succeeds."""
    with pytest.raises(NoSuchObject, match=r"frames/none\.jpg"):
        store.get("frames/none.jpg")
    assert store.stat("frames/none.jpg") is None
    store.remove("frames/none.jpg")


def test_an_object_over_the_limit_is_refused_and_the_connection_stays_good(store: ObjectStore) -> None:
    """Its unread bytes do not appear in the next response."""
    store.put("big", b"x" * 3_000_000)
    store.put("small", b"y" * 10)
    with pytest.raises(ObjectTooLarge, match="1,000 bytes"):
        store.get("big", limit=1000)
    assert store.get("small", limit=10) == b"y" * 10


def test_a_move_can_be_repeated_after_a_death_at_any_point(store: ObjectStore) -> None:
    """After a second move, or after a death between copy and removal, the object is at its target, once."""
    store.put("inbox/a", b"1")
    store.move("inbox/a", "frames/a")
    store.move("inbox/a", "frames/a")
    store.put("inbox/a", b"1")  # as a death after the copy leaves it
    store.move("inbox/a", "frames/a")
    assert [stored.key for stored in store.list("")] == ["frames/a"]
    with pytest.raises(NoSuchObject):
        store.move("inbox/never", "frames/never")


def test_many_objects_are_removed_in_few_requests_whatever_their_keys(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those that XML would change or cannot hold go one by one, and others stay; absent ones are no error."""
    monkeypatch.setattr(store_module, "PAGE_SIZE", 3)
    odd = ["inbox/a\x01b", "inbox/line\nfeed", "inbox/\u00fc", "inbox/space ", "inbox/<&>'\".json"]
    keys = [f"inbox/{n}.json" for n in range(7)] + odd
    for key in [*keys, "inbox/space", "inbox/line feed"]:
        store.put(key, b"")
    single = list[str]()
    remove = store.remove
    monkeypatch.setattr(store, "remove", lambda key: (single.append(key), remove(key)))
    store.remove_all([*keys, "inbox/never"])
    assert [stored.key for stored in store.list("")] == ["inbox/line feed", "inbox/space"]
    assert single == odd[:4]
    store.remove_all([])


@pytest.mark.parametrize("code", ["NotImplemented", "MethodNotAllowed"])
def test_a_server_that_removes_only_one_by_one_is_asked_so(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch, code: str
) -> None:
    """Some S3 servers have no request for many objects."""
    for name in "ab":
        store.put(name, b"")

    def refuse(*_: object) -> list[object]:
        raise S3Error(None, code, "no", None, None, None)  # type: ignore[arg-type]

    monkeypatch.setattr(store._client, "remove_objects", refuse)
    store.remove_all(["a", "b"])
    assert list(store.list("")) == []


def test_an_object_that_may_not_be_removed_is_an_error(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server's answer for a single key of many is not overlooked."""
    denied = [DeleteError("AccessDenied", "no", "a", None)]
    monkeypatch.setattr(store._client, "remove_objects", lambda *_: iter(denied))
    with pytest.raises(StoreDown, match="AccessDenied"):
        store.remove_all(["a"])


def test_a_listing_goes_over_pages_in_the_order_of_keys(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seven objects in pages of three: each once, in order, and from any key on."""
    monkeypatch.setattr(store_module, "PAGE_SIZE", 3)
    keys = [f"inbox/{n}.json" for n in range(7)]
    for key in reversed(keys):
        store.put(key, b"")
    store.put("other", b"")
    assert [stored.key for stored in store.list("inbox/")] == keys
    assert [stored.key for stored in store.list("inbox/", start_after=keys[4])] == keys[5:]
    assert list(store.list("nothing/")) == []


def test_a_presigned_address_needs_no_key(store: ObjectStore) -> None:
    """Whoever has the address reads the object; without the signature nobody does."""
    store.put("frames/a.jpg", b"jpeg")
    address = store.presigned_get("frames/a.jpg", 60)
    assert httpx.get(address).content == b"jpeg"
    assert httpx.get(address.partition("?")[0]).is_client_error


@pytest.mark.parametrize(
    "call",
    [
        lambda store: store.put("a", b""),
        lambda store: store.get("a"),
        lambda store: store.stat("a"),
        lambda store: list(store.list("")),
        lambda store: store.remove("a"),
        lambda store: store.copy("a", "b"),
        lambda store: store.ensure_bucket(),
    ],
    ids=["put", "get", "stat", "list", "remove", "copy", "ensure_bucket"],
)
@pytest.mark.server
def test_a_store_that_is_down_is_one_line_that_names_it(call: Callable[[ObjectStore], object]) -> None:
    """No method pretends that there is nothing: listing a store that is down is not an empty listing."""
    address = f"http://127.0.0.1:{find_free_port()}"
    with pytest.raises(StoreDown, match=address) as caught:
        call(ObjectStore(address, "key-of-many", "secret-of-many", "bucket", "us-east-1"))
    assert "\n" not in str(caught.value)


def test_wrong_keys_are_refused_at_once(s3_server: S3Server, fresh_bucket: str) -> None:
    """A retry would not help: the error comes without waiting, and says what to check."""
    began = time.monotonic()
    with pytest.raises(StoreDown, match="keys"):
        ObjectStore(s3_server.url, s3_server.access_key, "not-the-secret", fresh_bucket, "us-east-1").put(
            "a", b""
        )
    assert time.monotonic() - began < 2


class _FlakyHandler(BaseHTTPRequestHandler):
    """Answers the first ``failures`` requests with 503, the others with 200."""

    protocol_version = "HTTP/1.1"
    failures = 0

    def do_PUT(self) -> None:
        """A put object request."""
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        status = 200
        if _FlakyHandler.failures:
            _FlakyHandler.failures -= 1
            status = 503
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.send_header("ETag", '"x"')
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Print nothing."""


@pytest.mark.parametrize(("failures", "succeeds"), [(2, True), (9, False)])
@pytest.mark.server
def test_a_transient_error_is_retried(failures: int, succeeds: bool) -> None:
    """Two answers of 503, then success; a store that goes on answering 503 is down."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _FlakyHandler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    _FlakyHandler.failures = failures
    store = ObjectStore(
        f"http://127.0.0.1:{server.server_port}", "key-of-many", "secret-of-many", "bucket", "us-east-1"
    )
    try:
        if succeeds:
            store.put("a", b"1")
        else:
            with pytest.raises(StoreDown):
                store.put("a", b"1")
    finally:
        server.shutdown()
