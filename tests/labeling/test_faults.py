"""Label Studio fails, restarts or refuses the token; nothing is lost, and the error names the remedy."""

import base64
import http.client
import json
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

import pytest

from labeling import Client, LabelStudioUnavailable, connect
from operations.stack import find_free_port
from tests.labeling.conftest import Desk, region
from trashnet.errors import UserError
from trashnet.settings import Settings

KEPT = ("authorization", "content-type", "cookie")


class Proxy:
    """A reverse proxy that can answer 500 instead of Label Studio.

    ``fault(method, path)`` returns "before" (Label Studio gets no request), "after" (it gets the request, but
    its response is lost) or "none".
    """

    def __init__(self, url: str) -> None:
        self.fault: Callable[[str, str], str] = lambda method, path: "none"
        self.requests: list[tuple[str, str]] = []
        upstream = urlsplit(url)
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _pass_on(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length") or 0))
                path = urlsplit(self.path).path
                proxy.requests.append((self.command, path))
                fault = proxy.fault(self.command, path)
                status, answer, kind = 500, b"<html>proxy: upstream is ill</html>", "text/html"
                if fault != "before":
                    connection = http.client.HTTPConnection(
                        upstream.hostname or "", upstream.port or 80, timeout=60
                    )
                    headers = {name: value for name, value in self.headers.items() if name.lower() in KEPT}
                    connection.request(self.command, self.path, body, headers)
                    got = connection.getresponse()
                    if fault == "none":
                        status, answer, kind = got.status, got.read(), got.getheader("content-type") or ""
                    connection.close()
                self.send_response(status)
                self.send_header("content-type", kind)
                self.send_header("content-length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            do_GET = do_POST = do_PATCH = do_DELETE = _pass_on  # noqa: N815

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture
def proxy(settings: Settings) -> Iterator[Proxy]:
    """A proxy in front of the session's Label Studio."""
    made = Proxy(settings.label_studio_url)
    yield made
    made.server.shutdown()
    made.server.server_close()


@pytest.fixture
def faulty(desk: Desk, proxy: Proxy, settings: Settings) -> Desk:
    """The same desk, its client behind the proxy, patient for four seconds."""
    desk.client = connect(settings.model_copy(update={"label_studio_url": proxy.url}), retry_seconds=4)
    return desk


def test_responses_of_500_for_a_short_time_are_retried(faulty: Desk, proxy: Proxy) -> None:
    """Each request takes effect exactly once."""
    shas = faulty.draw(2)
    until = time.monotonic() + 1.5
    proxy.fault = lambda *_: "before" if time.monotonic() < until else "none"
    assert faulty.ask(shas) == 2
    proxy.fault = lambda *_: "none"
    faulty.answer(shas[0], region())
    until = time.monotonic() + 1.5
    proxy.fault = lambda *_: "before" if time.monotonic() < until else "none"
    assert faulty.collect().labelled == 1
    assert len(faulty.tasks()) == 2


def test_lasting_responses_of_500_are_one_error_and_the_next_run_succeeds(faulty: Desk, proxy: Proxy) -> None:
    """The error names the address and the remedy; the ledger does not change."""
    shas = faulty.draw(2)
    proxy.fault = lambda *_: "before"
    with pytest.raises(LabelStudioUnavailable) as raised:
        faulty.ask(shas)
    assert (
        str(raised.value)
        == f"Label Studio at {proxy.url} has answered 500 for 4 s. See its log; nothing is lost, run again."
    )
    assert faulty.ledger.count_by_state() == {"accepted": 2}
    proxy.fault = lambda *_: "none"
    assert faulty.ask(shas) == 2


def test_an_import_whose_response_was_lost_is_not_repeated(faulty: Desk, proxy: Proxy) -> None:
    """Label Studio created the tasks but the response was 500; the retry finds them first."""
    shas = faulty.draw(3)
    lost = iter(["after"])
    proxy.fault = lambda method, path: next(lost, "none") if path.endswith("/import") else "none"
    faulty.ask(shas)
    assert [path for _, path in proxy.requests if path.endswith("/import")] == [
        f"/api/projects/{faulty.project.id}/import"
    ]
    assert [task["data"]["sha256"] for task in faulty.tasks()] == shas
    assert faulty.ledger.count_by_state() == {"tasked": 3}


def test_an_interrupted_collection_keeps_the_pages_it_has_read(faulty: Desk, proxy: Proxy) -> None:
    """The next run continues after the last page."""
    shas = faulty.draw(5)
    faulty.ask(shas)
    for sha in shas:
        faulty.answer(sha, region())
    pages = iter(["none"])
    proxy.fault = lambda method, path: next(pages, "before") if path == "/api/tasks" else "none"
    small = faulty.params.model_copy(update={"page_size": 2})
    with pytest.raises(LabelStudioUnavailable):
        faulty.collect(small)
    assert faulty.ledger.count_by_state() == {"labelled": 2, "tasked": 3}
    proxy.fault = lambda *_: "none"
    assert faulty.collect(small).labelled == 3


def test_a_server_that_is_down_is_one_line(settings: Settings) -> None:
    """The error names the variable to check."""
    nowhere = f"http://127.0.0.1:{find_free_port()}"
    with pytest.raises(
        LabelStudioUnavailable,
        match=rf"{nowhere} does not answer \(ConnectError\)\. Is it up\? See TRASHNET_LABEL_STUDIO_URL",
    ):
        connect(settings.model_copy(update={"label_studio_url": nowhere}), retry_seconds=0.5)


def expired() -> str:
    """A personal access token of 2001."""
    parts = [
        {"alg": "HS256", "typ": "JWT"},
        {"token_type": "refresh", "exp": 10**9, "iat": 1, "jti": "a", "user_id": 1},
    ]
    return (
        ".".join(base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in parts)
        + ".c2ln"
    )


def alive() -> str:
    """A personal access token that is not expired, and that this server never issued."""
    parts = [
        {"alg": "HS256", "typ": "JWT"},
        {"token_type": "refresh", "exp": 10**10, "iat": 1, "jti": "a", "user_id": 1},
    ]
    return (
        ".".join(base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in parts)
        + ".c2ln"
    )


@pytest.mark.parametrize(
    "token", ["0" * 40, "nonsense", expired(), alive()], ids=["revoked", "nonsense", "expired", "never-given"]
)
def test_a_token_that_is_not_accepted_says_where_to_make_a_new_one(settings: Settings, token: str) -> None:
    """The error comes at once, because a retry would not help, and does not show the token."""
    begun = time.monotonic()
    with pytest.raises(UserError, match="does not accept the token") as raised:
        connect(settings.model_copy(update={"label_studio_token": type(settings.label_studio_token)(token)}))
    assert f"{settings.label_studio_url}/user/account/personal-access-token" in str(raised.value)
    assert "TRASHNET_LABEL_STUDIO_TOKEN" in str(raised.value)
    assert token not in str(raised.value)
    assert time.monotonic() - begun < 20


def test_an_error_quotes_the_refusal_of_label_studio(client: Client) -> None:
    """It does not quote the headers and cookies of the response."""
    with pytest.raises(UserError, match=r"refused \(404\)") as raised:
        client.with_retries(lambda: client.projects.get(10**8))
    assert "cookie" not in str(raised.value)
