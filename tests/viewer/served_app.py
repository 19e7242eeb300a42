"""The app as its own command serves it, for a real browser."""

import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import expect

from tests.conftest import REPOSITORY
from trashnet.processes import stop_process
from viewer.server import STOP_GRACE_SECONDS, ViewerOptions, streamlit_command

TIMEOUT_MILLISECONDS = 180_000  # the first photo opens several models, and other work may run beside
expect.set_options(timeout=TIMEOUT_MILLISECONDS)


def local_options(data: Path, build: Path) -> ViewerOptions:
    """A log and a build folder, and no flywheel, whatever is in the repository."""
    return ViewerOptions(
        data,
        build / "models",
        build / "scorecards",
        build / "predictions",
        REPOSITORY / "taxonomy.yaml",
        environment=build / "no stack.env",
    )


@contextmanager
def served(options: ViewerOptions, log: Path) -> Iterator[str]:
    """The app's address while it is served; what it writes goes to ``log``."""
    port = free_port()
    with log.open("w") as out:
        process = subprocess.Popen(
            streamlit_command(options, port=port, browser=False), cwd=REPOSITORY, stdout=out, stderr=out
        )
        try:
            address = f"http://127.0.0.1:{port}"
            wait_until_up(address, process, log)
            yield address
        finally:
            stop_process(process, STOP_GRACE_SECONDS)


def free_port() -> int:
    """A port of this machine that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_until_up(address: str, process: "subprocess.Popen[bytes]", log: Path) -> None:
    """Wait for Streamlit's health check."""
    deadline = time.monotonic() + TIMEOUT_MILLISECONDS / 1000
    while not is_up(f"{address}/_stcore/health"):
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < deadline, f"not up in time: {log.read_text()}"
        time.sleep(0.2)


def is_up(address: str) -> bool:
    """Whether a server answers 200 at this address."""
    try:
        with urllib.request.urlopen(address, timeout=2) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False
