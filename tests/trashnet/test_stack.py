"""The embedded stack: servers that answer, hide their keys, and leave nothing behind."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from minio import Minio
from minio.error import MinioException

from tests.conftest import REPOSITORY
from tests.servers import S3Server
from trashnet.errors import UserError
from trashnet.stack import free_port, start_s3
from trashnet.stack.process import LOOPBACK, spawn


def running(pid: int) -> bool:
    """Whether a process with this number runs (a zombie does not)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def gone(pid: int, seconds: float = 15) -> bool:
    """Wait until the process is no more."""
    deadline = time.monotonic() + seconds
    while running(pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    return not running(pid)


def client(server: S3Server, secret_key: str | None = None) -> Minio:
    """A client with the server's keys, or with a wrong secret."""
    address = server.url.removeprefix("http://")
    return Minio(address, server.access_key, secret_key or server.secret_key, secure=False, region="us-east-1")


def test_the_s3_server_serves_its_keys_holder_and_nobody_else(s3_server: S3Server, fresh_bucket: str) -> None:
    """A bucket can be made with the keys, and not looked at with others."""
    client(s3_server).make_bucket(fresh_bucket)
    assert client(s3_server).bucket_exists(fresh_bucket)
    with pytest.raises(MinioException):
        client(s3_server, "another-secret-key").list_buckets()


def test_keys_are_on_no_command_line_and_in_no_log(s3_server: S3Server) -> None:
    """Any user of the machine may list processes."""
    listed = subprocess.run(["ps", "axww", "-o", "args"], capture_output=True, text=True, check=True).stdout
    assert "serve s3" in listed
    for secret in (s3_server.access_key, s3_server.secret_key):
        assert secret not in listed
        assert secret not in s3_server.server.log.read_text()
    assert s3_server.server.log.stat().st_mode & 0o077 == 0


def test_a_taken_port_is_named(s3_server: S3Server, tmp_path: Path) -> None:
    """Two servers on one port would be told apart by chance."""
    port = int(s3_server.url.rpartition(":")[2])
    with pytest.raises(UserError, match=f"port {port} on {LOOPBACK} is taken"):
        start_s3(tmp_path / "data", port, "key", "secret")


def test_a_server_that_cannot_start_says_its_last_words(tmp_path: Path) -> None:
    """What the log ends with is in the error, and where the log is."""
    command = [sys.executable, "-c", "import sys; sys.exit('no such luck')"]
    with pytest.raises(UserError, match=r"(?s)luckless ended while starting \(exit status 1\).*no such luck.*whole log: .*/log"):
        spawn("luckless", command, url="", log=tmp_path / "log", healthy=lambda: False).wait_healthy(30)


def test_a_missing_program_is_named(tmp_path: Path) -> None:
    """The keeper cannot start it, and says so in the log."""
    with pytest.raises(UserError, match="no-such-program: No such file"):
        spawn("nothing", ["no-such-program"], url="", log=tmp_path / "log", healthy=lambda: False).wait_healthy(30)


# A server that will not end when asked, with a child in another session and process group that will not either.
STUBBORN = """
import os, signal, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
if os.fork() == 0:
    os.setsid()
    open(sys.argv[1] + "/child", "w").write(str(os.getpid()))
else:
    open(sys.argv[1] + "/server", "w").write(str(os.getpid()))
time.sleep(600)
"""


def pids(folder: Path) -> list[int]:
    """The numbers that the stubborn server and its child wrote."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        written = [folder / "server", folder / "child"]
        if all(path.is_file() and path.read_text() for path in written):
            return [int(path.read_text()) for path in written]
        time.sleep(0.05)
    raise AssertionError("it did not start")


def test_stopping_ends_a_stubborn_server_and_all_its_descendants(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Asked first, then made to, even what moved to a session of its own."""
    monkeypatch.setattr("trashnet.stack.process.GRACE_SECONDS", 0.5)
    server = spawn("stubborn", [sys.executable, "-c", STUBBORN, tmp_path], url="", log=tmp_path / "log", healthy=lambda: True)
    started = pids(tmp_path)
    server.stop()
    assert not server.alive()
    assert not any(running(pid) for pid in started)


def test_no_server_outlives_a_starter_that_was_killed(tmp_path: Path) -> None:
    """`kill -9` of whoever started it leaves no orphan, not even of a server that ignores being asked."""
    program = (
        "import sys, time; from pathlib import Path; from trashnet.stack import process; process.GRACE_SECONDS = 0.5\n"
        "folder = Path(sys.argv[1]); started = process.spawn('stubborn', [sys.executable, '-c', sys.argv[2], folder], url='',"
        " log=folder / 'log', healthy=lambda: True)\n"
        "time.sleep(600)"
    )
    starter = subprocess.Popen([sys.executable, "-c", program, tmp_path, STUBBORN], cwd=REPOSITORY)
    started = pids(tmp_path)
    os.kill(starter.pid, signal.SIGKILL)
    starter.wait()
    assert all(gone(pid) for pid in started)


def test_settings_for_other_servers_do_not_reach_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A laptop that talks to a team's Prefect still starts its own with its own database."""
    monkeypatch.setenv("PREFECT_API_URL", "https://prefect.example.org/api")
    monkeypatch.setenv("NO_PROXY", "example.org")
    program = "import os; print(os.environ.get('PREFECT_API_URL'), os.environ['NO_PROXY'])"
    server = spawn("echo", [sys.executable, "-c", program], url="", log=tmp_path / "log", healthy=lambda: False)
    assert server.process.wait(30) == 0
    assert (tmp_path / "log").read_text().split() == ["None", "example.org,127.0.0.1,localhost"]


def test_a_server_stopped_can_start_again_on_its_port_with_its_data(tmp_path: Path) -> None:
    """Ports and data are kept from one start to the next."""
    port = free_port()
    for _ in range(2):
        server = start_s3(tmp_path / "data", port, "an-access-key", "a-secret-key")
        store = client(S3Server(server, server.url, "an-access-key", "a-secret-key"))
        if not store.bucket_exists("kept"):
            store.make_bucket("kept")
        server.stop()
    assert (tmp_path / "data/kept").is_dir()


def test_postgresql_gives_every_test_a_database(postgres_url: str) -> None:
    """The ledger's tests run on it: by the driver that the product ships with."""
    import sqlalchemy

    engine = sqlalchemy.create_engine(postgres_url)
    with engine.connect() as connection:
        assert connection.execute(sqlalchemy.text("select count(*) from pg_tables where schemaname = 'public'")).scalar() == 0
    engine.dispose()
