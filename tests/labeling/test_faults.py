"""Label Studio fails, restarts or refuses the token: nothing is lost, and one line says what to do."""

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
    """A reverse proxy; ``fault(method, path)`` says where a request meets a 500: before, after, none."""

    def __init__(self, url: str) -> None:
        self.fault: Callable[[str, str], str] = lambda method, path: "none"
        self.asked: list[tuple[str, str]] = []
        there = urlsplit(url)
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _pass_on(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length") or 0))
                path = urlsplit(self.path).path
                proxy.asked.append((self.command, path))
                fault = proxy.fault(self.command, path)
                status, answer, kind = 500, b"<html>proxy: upstream is ill</html>", "text/html"
                if fault != "before":
                    connection = http.client.HTTPConnection(
                        there.hostname or "", there.port or 80, timeout=60
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
    """Before the session's Label Studio."""
    made = Proxy(settings.label_studio_url)
    yield made
    made.server.shutdown()
    made.server.server_close()


@pytest.fixture
def ill(desk: Desk, proxy: Proxy, settings: Settings) -> Desk:
    """The same desk, its client behind the proxy, patient for four seconds."""
    desk.client = connect(settings.model_copy(update={"label_studio_url": proxy.url}), retry_seconds=4)
    return desk


def test_five_hundreds_for_a_while_are_waited_out(ill: Desk, proxy: Proxy) -> None:
    """Requests and answers of that time arrive, each once."""
    shas = ill.draw(2)
    until = time.monotonic() + 1.5
    proxy.fault = lambda *_: "before" if time.monotonic() < until else "none"
    assert ill.ask(shas) == 2
    proxy.fault = lambda *_: "none"
    ill.answer(shas[0], region())
    until = time.monotonic() + 1.5
    proxy.fault = lambda *_: "before" if time.monotonic() < until else "none"
    assert ill.collect().labelled == 1
    assert len(ill.tasks()) == 2


def test_five_hundreds_without_end_are_one_line_and_the_next_run_succeeds(ill: Desk, proxy: Proxy) -> None:
    """Naming the address and the remedy; the ledger is as before."""
    shas = ill.draw(2)
    proxy.fault = lambda *_: "before"
    with pytest.raises(LabelStudioUnavailable) as raised:
        ill.ask(shas)
    assert (
        str(raised.value)
        == f"Label Studio at {proxy.url} has answered 500 for 4 s. See its log; nothing is lost, run again."
    )
    assert ill.ledger.count_by_state() == {"accepted": 2}
    proxy.fault = lambda *_: "none"
    assert ill.ask(shas) == 2


def test_an_import_whose_answer_was_lost_is_not_done_again(ill: Desk, proxy: Proxy) -> None:
    """Label Studio has the tasks, we got a 500: asking first tells."""
    shas = ill.draw(3)
    lost = iter(["after"])
    proxy.fault = lambda method, path: next(lost, "none") if path.endswith("/import") else "none"
    ill.ask(shas)
    assert [path for _, path in proxy.asked if path.endswith("/import")] == [
        f"/api/projects/{ill.project.id}/import"
    ]
    assert [task["data"]["sha256"] for task in ill.tasks()] == shas
    assert ill.ledger.count_by_state() == {"tasked": 3}


def test_a_collection_that_breaks_off_keeps_what_it_has(ill: Desk, proxy: Proxy) -> None:
    """Page by page; the next run takes up where it stopped."""
    shas = ill.draw(5)
    ill.ask(shas)
    for sha in shas:
        ill.answer(sha, region())
    pages = iter(["none"])
    proxy.fault = lambda method, path: next(pages, "before") if path == "/api/tasks" else "none"
    small = ill.params.model_copy(update={"page_size": 2})
    with pytest.raises(LabelStudioUnavailable):
        ill.collect(small)
    assert ill.ledger.count_by_state() == {"labelled": 2, "tasked": 3}
    proxy.fault = lambda *_: "none"
    assert ill.collect(small).labelled == 3


def test_a_server_that_is_down_is_one_line(settings: Settings) -> None:
    """With the variable to look at."""
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
    """A personal access token that is not expired, and that this server never gave."""
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
    """At once: waiting would not help. The token itself is not shown."""
    begun = time.monotonic()
    with pytest.raises(UserError, match="does not accept the token") as raised:
        connect(settings.model_copy(update={"label_studio_token": type(settings.label_studio_token)(token)}))
    assert f"{settings.label_studio_url}/user/account/personal-access-token" in str(raised.value)
    assert "TRASHNET_LABEL_STUDIO_TOKEN" in str(raised.value)
    assert token not in str(raised.value)
    assert time.monotonic() - begun < 20


def test_what_label_studio_refuses_is_told_in_its_words(client: Client) -> None:
    """Without the headers and cookies of its answer."""
    with pytest.raises(UserError, match=r"refused \(404\)") as raised:
        client.with_retries(lambda: client.projects.get(10**8))
    assert "cookie" not in str(raised.value)
