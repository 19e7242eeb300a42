"""A token in the origin's address: git works with it, and nobody sees it."""

import base64
import os
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.clones import run
from trashnet.clone import BRANCH, ensure_clone
from trashnet.errors import UserError

TOKEN = "ghp-a-token-that-nobody-may-see"


@pytest.fixture
def git_server(tmp_path: Path) -> Iterator[str]:
    """git's own HTTP server over a repository, for those with the token; its address without a scheme."""
    run(tmp_path, "git", "init", "--quiet", "--initial-branch=main", "served")
    (tmp_path / "served/README").write_text("hello")
    run(tmp_path / "served", "git", "add", ".")
    run(tmp_path / "served", "git", "commit", "-qm", "begin")
    run(tmp_path / "served", "git", "config", "http.receivepack", "true")
    wanted = "Basic " + base64.b64encode(f"bin:{TOKEN}".encode()).decode()
    program = Path(subprocess.check_output(["git", "--exec-path"], text=True).strip()) / "git-http-backend"

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.headers.get("Authorization") != wanted:
                self.send_response(401)
                self.send_header("WWW-Authenticate", 'Basic realm="git"')
                self.end_headers()
                return
            path, _, query = self.path.partition("?")
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            if self.headers.get("Transfer-Encoding") == "chunked":
                raise AssertionError("the tests' pushes are small")
            environment = os.environ | {
                "GIT_PROJECT_ROOT": str(tmp_path),
                "GIT_HTTP_EXPORT_ALL": "1",
                "REMOTE_USER": "bin",
                "REQUEST_METHOD": self.command,
                "PATH_INFO": path,
                "QUERY_STRING": query,
                "CONTENT_TYPE": self.headers.get("Content-Type", ""),
                "CONTENT_LENGTH": str(len(body)),
                "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""),
            }
            done = subprocess.run([program], input=body, env=environment, capture_output=True)
            head, _, content = done.stdout.partition(b"\r\n\r\n")
            fields = dict(line.split(": ", 1) for line in head.decode().split("\r\n"))
            self.send_response(int(fields.pop("Status", "200").split()[0]))
            for name, value in fields.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)

        do_POST = do_GET  # noqa: N815 (the name that http.server calls)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


class CommandLines(threading.Thread):
    """Looks for the token on every command line of this machine, until it is stopped."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.seen, self.is_stopped = set[str](), threading.Event()

    def run(self) -> None:
        """Look, again and again."""
        while not self.is_stopped.is_set():
            for path in Path("/proc").glob("[0-9]*/cmdline"):
                try:
                    line = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
                except OSError:
                    continue
                if TOKEN in line:
                    self.seen.add(line)


def test_a_token_in_the_origins_address_is_on_no_command_line_and_in_no_setting(
    git_server: str, tmp_path: Path
) -> None:
    """Cloning, fetching and pushing work with it; only a private file beside the clone has it."""
    watching = CommandLines()
    watching.start()
    path = tmp_path / "clone"
    clone = ensure_clone(f"http://bin:{TOKEN}@{git_server}/served", path)
    (path / "NOTE").write_text("a note")
    clone.commit("a note", "NOTE")
    clone.push()
    clone.git("fetch", "origin")
    watching.is_stopped.set()
    watching.join()
    assert watching.seen == set()
    assert run(tmp_path / "served", "git", "show", f"{BRANCH}:NOTE") == "a note"
    assert TOKEN not in (path / ".git/config").read_text()
    assert TOKEN not in clone.git("remote", "-v")
    kept = tmp_path / "clone.credentials"
    assert TOKEN in kept.read_text()
    assert kept.stat().st_mode & 0o077 == 0


def test_a_clone_of_an_older_version_loses_the_token_from_its_settings(
    git_server: str, tmp_path: Path
) -> None:
    """It goes on fetching and pushing, and a second setup with a new token replaces the old one."""
    path, address = tmp_path / "clone", f"http://bin:{TOKEN}@{git_server}/served"
    run(tmp_path, "git", "clone", "--quiet", address, "clone")
    run(path, "git", "checkout", "--quiet", "-B", BRANCH)
    for _ in range(2):
        ensure_clone(address, path).push()
    assert TOKEN not in (path / ".git/config").read_text()


@pytest.mark.parametrize("user", [f"bin:{TOKEN}", TOKEN])
def test_the_error_of_an_origin_that_cannot_be_cloned_does_not_show_the_token(
    user: str, tmp_path: Path
) -> None:
    """Some services take the token as the user. The address itself is named."""
    with pytest.raises(UserError, match=r"http://127\.0\.0\.1:9/x\.git: cannot be cloned") as raised:
        ensure_clone(f"http://{user}@127.0.0.1:9/x.git", tmp_path / "clone")
    assert TOKEN not in str(raised.value)


def test_credentials_in_any_url_of_an_error_are_masked() -> None:
    """Whatever program's output an error quotes."""
    error = UserError(f"fatal: unable to access 'https://{TOKEN}@example.org/x.git/': postgresql://a:b@c/d")
    assert str(error) == "fatal: unable to access 'https://***@example.org/x.git/': postgresql://***@c/d"
