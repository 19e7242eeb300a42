"""One server of the stack as a process.

It runs under a subreaper, is healthy once it has answered a real request, and leaves no process behind when
stopped.
"""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from trashnet.errors import UserError

SUBREAPER = Path(__file__).with_name("subreaper.py")
LOOPBACK = "127.0.0.1"
STOP_GRACE_SECONDS = 20.0  # for a server to end by itself before it is killed
KILL_SECONDS = 10.0  # for its subreaper to kill what is left
POLL_SECONDS = 0.1
LOG_TAIL_LINES = 15

# The servers' programs read these variables, and a user's settings for other servers must not reach ours.
# fmt: off
EXCLUDED_PREFIXES = (
    "PREFECT_", "RCLONE_", "LABEL_STUDIO_", "HEARTEX_", "DJANGO_", "POSTGRE_", "PYTHONPATH", "S3_ENDPOINT",
    "SSRF_", "VIRTUAL_ENV",
)
# fmt: on


@dataclass
class Server:
    """A running server.

    ``url`` has no trailing slash; it is empty for a server that takes no requests (the worker).
    """

    name: str
    url: str
    log: Path
    process: "subprocess.Popen[bytes]"
    is_healthy: Callable[[], bool]
    started: datetime = field(default_factory=lambda: datetime.now(UTC))

    def is_alive(self) -> bool:
        """Whether its process runs; whether it answers is ``is_healthy()``."""
        return self.process.poll() is None

    def stop(self) -> None:
        """Ask the server to end, kill it after 20 seconds, and wait until all its descendants are gone.

        Stopping a server twice is no error.
        """
        if self.is_alive():
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(STOP_GRACE_SECONDS + KILL_SECONDS)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        if self.process.stdin is not None:
            self.process.stdin.close()

    def wait_until_healthy(self, timeout_seconds: float) -> "Server":
        """Return the server once it answers a request.

        Raises :class:`UserError` with the end of its log if it ends before that, or after the timeout.
        """
        deadline = time.monotonic() + timeout_seconds
        while time.monotonic() < deadline:
            if not self.is_alive():
                raise self.start_error()
            try:
                if self.is_healthy():
                    return self
            except UserError:  # it answers that it will never be healthy
                self.stop()
                raise
            time.sleep(POLL_SECONDS)
        self.stop()
        raise self.timeout_error(timeout_seconds)

    def start_error(self) -> UserError:
        """The error of a server that ended while it was starting."""
        status = self.process.returncode
        return UserError(f"{self.name} ended while starting (exit status {status}).\n{self.log_tail()}")

    def timeout_error(self, timeout_seconds: float) -> UserError:
        """The error of a server that did not answer in time."""
        return UserError(f"{self.name} did not answer within {timeout_seconds:.0f} s.\n{self.log_tail()}")

    def log_tail(self) -> str:
        """The last lines of its log, and where the whole log is."""
        text = self.log.read_text(encoding="utf-8", errors="replace") if self.log.is_file() else ""
        lines = [f"  {line}" for line in text.splitlines()[-LOG_TAIL_LINES:]]
        return "\n".join([*lines, f"The whole log: {self.log}"])


def spawn(
    name: str,
    command: Sequence[str | Path],
    *,
    url: str,
    log: Path,
    is_healthy: Callable[[], bool],
    environment: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    stop_signal: signal.Signals = signal.SIGTERM,
) -> Server:
    """Start a server and return at once, before it is healthy. It ends with this process, however that ends.

    Secrets belong in ``environment``: every user of the machine can read a command line.

    Args:
        name: what messages call the server.
        command: the program and its arguments.
        url: the server's address, empty if it takes no requests.
        log: the file that its output is appended to; only the owner may read it.
        is_healthy: whether the server answers now.
        environment: added to our own variables, see :func:`clean_environment`.
        cwd: the folder that it runs in.
        stop_signal: the signal that asks it to end.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    subreaper = [sys.executable, "-I", "-S", SUBREAPER, STOP_GRACE_SECONDS, int(stop_signal)]
    with open(log, "ab", opener=_open_private) as output:
        process = subprocess.Popen(
            [*map(str, subreaper), *map(str, command)],
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=clean_environment() | dict(environment or {}),
            cwd=cwd,
            start_new_session=True,  # Ctrl-C must not reach it: we stop the servers in the right order
        )
    return Server(name, url, log, process, is_healthy)


def clean_environment() -> dict[str, str]:
    """Our environment without settings for other servers, and with loopback exempt from any proxy."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(EXCLUDED_PREFIXES)}
    no_proxy = [kept.get("NO_PROXY") or kept.get("no_proxy", ""), LOOPBACK, "localhost"]
    direct = ",".join(filter(None, no_proxy))
    return kept | {"NO_PROXY": direct, "no_proxy": direct, "PYTHONUNBUFFERED": "1", "DO_NOT_TRACK": "1"}


def find_free_port() -> int:
    """A port on loopback that no program listens on now."""
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        return int(probe.getsockname()[1])


def is_port_free(port: int) -> bool:
    """Whether a server could listen on ``port`` of loopback."""
    with socket.socket() as probe:
        # Without this option the last connections of a server that has just stopped count as well.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
    return True


def _open_private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
