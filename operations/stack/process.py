"""One server of the stack as a process: started through its subreaper, healthy once a real request was
answered, stopped without a trace.
"""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from trashnet.errors import UserError

SUBREAPER = Path(__file__).with_name("subreaper.py")
LOOPBACK = "127.0.0.1"
GRACE_SECONDS = 20.0  # for a server to end by itself
POLL_SECONDS = 0.1
LOG_LINES = 15

# What the servers' own programs read from the environment: a person's settings for other servers of the kind
# must not reach ours.
FOREIGN_VARIABLES = (
    "PREFECT_",
    "RCLONE_",
    "LABEL_STUDIO_",
    "HEARTEX_",
    "DJANGO_",
    "POSTGRE_",
    "PYTHONPATH",
    "S3_ENDPOINT",
    "SSRF_",
    "VIRTUAL_ENV",
)


@dataclass
class Server:
    """A running server.

    ``url`` has no trailing slash and is empty for one that takes no requests (the worker).
    """

    name: str
    url: str
    log: Path
    process: "subprocess.Popen[bytes]"
    healthy: Callable[[], bool]
    started: datetime = field(default_factory=lambda: datetime.now(UTC))

    def alive(self) -> bool:
        """Whether its process runs; whether it answers is ``healthy()``."""
        return self.process.poll() is None

    def stop(self) -> None:
        """Ask it to end, make it after 20 seconds, and return once it and all its descendants are gone.

        Stopping twice is fine.
        """
        if self.alive():
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(GRACE_SECONDS + 10)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        if self.process.stdin is not None:
            self.process.stdin.close()

    def wait_healthy(self, seconds: float) -> "Server":
        """Return once a request is answered.

        Raises :class:`UserError` with the end of the log if it ends before, or after ``seconds``.
        """
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if not self.alive():
                raise UserError(
                    f"{self.name} ended while starting (exit status "
                    f"{self.process.returncode}).\n{self.log_tail()}"
                )
            try:
                if self.healthy():
                    return self
            except UserError:  # it answers, and what it says is that it will never do
                self.stop()
                raise
            time.sleep(POLL_SECONDS)
        self.stop()
        raise UserError(f"{self.name} did not answer within {seconds:.0f} s.\n{self.log_tail()}")

    def log_tail(self) -> str:
        """The end of its log, and where the rest is."""
        lines = (
            self.log.read_text(encoding="utf-8", errors="replace").splitlines()[-LOG_LINES:]
            if self.log.is_file()
            else []
        )
        return "\n".join([*(f"  {line}" for line in lines), f"The whole log: {self.log}"])


def spawn(
    name: str,
    command: Sequence[str | Path],
    *,
    url: str,
    log: Path,
    healthy: Callable[[], bool],
    environment: Mapping[str, str] | None = None,
    folder: Path | None = None,
    asking: signal.Signals = signal.SIGTERM,
) -> Server:
    """Start ``command`` in ``folder`` with ``environment`` added to ours, its output appended to ``log``.

    Do not wait until it is healthy.

    ``asking`` is the signal that it takes for a request to end.

    It ends with this process, however that ends. Secrets belong in ``environment``: a command line is there
    for everybody to read.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with ExitStack() as opened:
        output = opened.enter_context(open(log, "ab", opener=_private))
        process = subprocess.Popen(
            [
                sys.executable,
                "-I",
                "-S",
                str(SUBREAPER),
                str(GRACE_SECONDS),
                str(int(asking)),
                *map(str, command),
            ],
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=clean_environment() | dict(environment or {}),
            cwd=folder,
            start_new_session=True,  # Ctrl-C in the terminal is ours to pass on, in the right order
        )
    return Server(name, url, log, process, healthy)


def clean_environment() -> dict[str, str]:
    """Our environment without other servers' settings, and with loopback exempt from any proxy."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(FOREIGN_VARIABLES)}
    direct = ",".join(filter(None, [kept.get("NO_PROXY") or kept.get("no_proxy", ""), LOOPBACK, "localhost"]))
    return kept | {"NO_PROXY": direct, "no_proxy": direct, "PYTHONUNBUFFERED": "1", "DO_NOT_TRACK": "1"}


def free_port() -> int:
    """A port on loopback that nothing listens on now."""
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        return int(probe.getsockname()[1])


def is_port_free(port: int) -> bool:
    """Whether a server could listen on ``port`` of loopback."""
    with socket.socket() as probe:
        probe.setsockopt(
            socket.SOL_SOCKET, socket.SO_REUSEADDR, 1
        )  # else the last connections of a server just stopped count
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
    return True


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
