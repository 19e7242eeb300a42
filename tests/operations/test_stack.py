"""The embedded stack: servers that answer, hide their keys, and leave nothing behind."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from minio import Minio
from minio.error import MinioException

from operations.stack import find_free_port, start_s3
from operations.stack.commands import down
from operations.stack.process import LOOPBACK, spawn
from operations.stack.run_state import (
    RunRecord,
    StackPaths,
    ensure_environment,
    ensure_ports,
    find_run,
    read_environment_file,
)
from tests.conftest import REPOSITORY
from tests.servers import LabelStudioServer, S3Server
from trashnet.errors import UserError
from trashnet.settings import load_settings


def runs(pid: int) -> bool:
    """Whether the process runs; a zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def ends(pid: int, seconds: float = 15) -> bool:
    """Whether the process ends within that time."""
    deadline = time.monotonic() + seconds
    while runs(pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    return not runs(pid)


def client(server: S3Server, secret_key: str | None = None) -> Minio:
    """A client with the server's keys, or with a wrong secret."""
    address = server.url.removeprefix("http://")
    return Minio(
        address, server.access_key, secret_key or server.secret_key, secure=False, region="us-east-1"
    )


def test_the_s3_server_serves_only_clients_with_its_keys(s3_server: S3Server, fresh_bucket: str) -> None:
    """A bucket can be created with the right keys, and not be listed with others."""
    client(s3_server).make_bucket(fresh_bucket)
    assert client(s3_server).bucket_exists(fresh_bucket)
    with pytest.raises(MinioException):
        client(s3_server, "another-secret-key").list_buckets()


def test_keys_are_on_no_command_line_and_in_no_log(s3_server: S3Server) -> None:
    """Every user of the machine can list processes."""
    listed = subprocess.run(["ps", "axww", "-o", "args"], capture_output=True, text=True, check=True).stdout
    assert "serve s3" in listed
    for secret in (s3_server.access_key, s3_server.secret_key):
        assert secret not in listed
        assert secret not in s3_server.server.log.read_text()
    assert s3_server.server.log.stat().st_mode & 0o077 == 0


def test_a_taken_port_is_named(s3_server: S3Server, tmp_path: Path) -> None:
    """The message says which port of which address it is."""
    port = int(s3_server.url.rpartition(":")[2])
    with pytest.raises(UserError, match=f"port {port} on {LOOPBACK} is taken"):
        start_s3(tmp_path / "data", port, "key", "secret")


def test_the_error_of_a_server_that_cannot_start_quotes_its_log(tmp_path: Path) -> None:
    """The message has the log's last lines and its path."""
    command = [sys.executable, "-c", "import sys; sys.exit('no such luck')"]
    with pytest.raises(
        UserError,
        match=r"(?s)broken ended while starting \(exit status 1\).*no such luck.*whole log: .*/log",
    ):
        spawn("broken", command, url="", log=tmp_path / "log", is_healthy=lambda: False).wait_until_healthy(
            30
        )


def test_a_missing_program_is_named(tmp_path: Path) -> None:
    """The subreaper cannot start it, and says so in the log."""
    with pytest.raises(UserError, match="no-such-program: No such file"):
        spawn(
            "nothing", ["no-such-program"], url="", log=tmp_path / "log", is_healthy=lambda: False
        ).wait_until_healthy(30)


# A server that will not end when asked, with a child in another session and process group that will not
# either.
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


def test_stopping_ends_a_stubborn_server_and_all_its_descendants(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are asked first, then killed, even those that moved to a session of their own."""
    monkeypatch.setattr("operations.stack.process.STOP_GRACE_SECONDS", 0.5)
    server = spawn(
        "stubborn",
        [sys.executable, "-c", STUBBORN, tmp_path],
        url="",
        log=tmp_path / "log",
        is_healthy=lambda: True,
    )
    started = pids(tmp_path)
    server.stop()
    assert not server.is_alive()
    assert not any(runs(pid) for pid in started)


def test_no_server_outlives_a_starter_that_was_killed(tmp_path: Path) -> None:
    """`kill -9` of whoever started it leaves no orphan, not even of a server that ignores being asked."""
    program = (
        "import sys, time; from pathlib import Path; from operations.stack import process; "
        "process.STOP_GRACE_SECONDS = 0.5\n"
        "folder = Path(sys.argv[1]); started = process.spawn('stubborn', [sys.executable, '-c', sys.argv[2], "
        "folder], url='',"
        " log=folder / 'log', is_healthy=lambda: True)\n"
        "time.sleep(600)"
    )
    starter = subprocess.Popen([sys.executable, "-c", program, tmp_path, STUBBORN], cwd=REPOSITORY)
    started = pids(tmp_path)
    os.kill(starter.pid, signal.SIGKILL)
    starter.wait()
    assert all(ends(pid) for pid in started)


def test_settings_for_other_servers_do_not_reach_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A laptop that talks to a team's Prefect still starts its own with its own database."""
    monkeypatch.setenv("PREFECT_API_URL", "https://prefect.example.org/api")
    monkeypatch.setenv("NO_PROXY", "example.org")
    program = "import os; print(os.environ.get('PREFECT_API_URL'), os.environ['NO_PROXY'])"
    server = spawn(
        "echo", [sys.executable, "-c", program], url="", log=tmp_path / "log", is_healthy=lambda: False
    )
    assert server.process.wait(30) == 0
    assert (tmp_path / "log").read_text().split() == ["None", "example.org,127.0.0.1,localhost"]


@pytest.mark.server
def test_a_server_stopped_can_start_again_on_its_port_with_its_data(tmp_path: Path) -> None:
    """Ports and data are kept from one start to the next."""
    port = find_free_port()
    for _ in range(2):
        server = start_s3(tmp_path / "data", port, "an-access-key", "a-secret-key")
        store = client(S3Server(server, server.url, "an-access-key", "a-secret-key"))
        if not store.bucket_exists("kept"):
            store.make_bucket("kept")
        server.stop()
    assert (tmp_path / "data/kept").is_dir()


class SmallStack:
    """The supervisor over small servers, as a process of its own."""

    def __init__(self, folder: Path) -> None:
        self.paths = StackPaths(folder / ".trashnet")
        self.log = folder / "output"

    def up(self, *setup: str) -> "subprocess.Popen[bytes]":
        """Start it, with a setup command; its output goes to ``log``."""
        command = [sys.executable, REPOSITORY / "tests/operations/small_stack.py", self.paths.folder, *setup]
        with self.log.open("ab") as out:
            return subprocess.Popen(command, cwd=REPOSITORY, stdout=out, stderr=subprocess.STDOUT)

    def until(self, holds: Callable[[RunRecord], bool], seconds: float = 30) -> RunRecord:
        """Wait until the condition holds for the record, and return the record."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            record = find_run(self.paths)
            if record is not None and record.pid and holds(record):
                return record
            time.sleep(0.05)
        raise AssertionError(f"not within {seconds:.0f} s: {find_run(self.paths)}\n{self.log.read_text()}")

    def servers(self) -> list[int]:
        """The numbers of the small servers' processes."""
        listed = subprocess.run(
            ["ps", "axww", "-o", "pid,args"], capture_output=True, text=True, check=True
        ).stdout
        return [
            int(line.split()[0])
            for line in listed.splitlines()
            if str(self.paths.logs) in line and "subreaper.py" not in line
        ]


def is_up(record: RunRecord) -> bool:
    """Everything answers."""
    return record.phase == "up" and all(server.state == "up" for server in record.servers.values())


@pytest.fixture
def small_stack(tmp_path: Path) -> Iterator[SmallStack]:
    """A stack that is not running yet, and is not afterwards."""
    stack = SmallStack(tmp_path)
    yield stack
    down(stack.paths)


def test_the_stack_starts_and_stops_and_only_its_owner_can_read_the_credentials(
    small_stack: SmallStack,
) -> None:
    """They are random at the first start and the same at the next, and nothing is left running."""
    kept = []
    for _ in range(2):
        up = small_stack.up()
        small_stack.until(is_up)
        assert len(small_stack.servers()) == 5
        down(small_stack.paths)
        assert up.wait() == 0
        assert small_stack.servers() == []
        assert find_run(small_stack.paths) is None
        kept.append((small_stack.paths.environment.read_text(), small_stack.paths.ports.read_text()))
    assert kept[0] == kept[1]
    assert small_stack.paths.environment.stat().st_mode & 0o777 == 0o600
    assert small_stack.paths.folder.stat().st_mode & 0o777 == 0o700
    ends = ("KEY", "WORD", "TOKEN", "SECRET", "AUTH_STRING")
    secrets = [
        value
        for name, value in read_environment_file(small_stack.paths.environment).items()
        if name.endswith(ends)
    ]
    assert len(set(secrets)) == 6
    assert not [secret for secret in secrets if secret in small_stack.log.read_text()]
    settings = load_settings(small_stack.paths.environment)  # all that every other command needs is there
    assert settings.clone == (small_stack.paths.folder / "clone").resolve()


def test_ctrl_c_stops_callers_before_those_they_call(small_stack: SmallStack) -> None:
    """A worker whose server has stopped before it would report failures."""
    up = small_stack.up()
    small_stack.until(is_up)
    up.send_signal(signal.SIGINT)
    assert up.wait(30) == 0
    assert small_stack.servers() == []


def test_a_second_start_is_refused_and_the_first_goes_on(small_stack: SmallStack) -> None:
    """The error names the process that runs the stack."""
    first = small_stack.up()
    small_stack.until(is_up)
    second = small_stack.up()
    assert second.wait(30) == 1
    assert f"this stack is already running, by process {first.pid} since" in small_stack.log.read_text()
    assert is_up(small_stack.until(is_up))


def test_a_server_that_dies_is_started_again_and_the_record_says_so(small_stack: SmallStack) -> None:
    """With its reason and a count; the others are left alone."""
    small_stack.up()
    before = small_stack.until(is_up)
    port = before.servers["s3"].url.rpartition(":")[2]
    commands = {pid: Path(f"/proc/{pid}/cmdline").read_text() for pid in small_stack.servers()}
    os.kill(
        next(pid for pid, command in commands.items() if f"http.server\0{port}\0" in command), signal.SIGKILL
    )
    after = small_stack.until(lambda record: record.servers["s3"].restarts == 1 and is_up(record))
    assert after.servers["s3"].note == "ended (exit status 137)"
    assert [server.restarts for name, server in after.servers.items() if name != "s3"] == [0, 0, 0, 0]
    assert "s3 ended (exit status 137); starting it again" in small_stack.log.read_text()


def test_a_stack_that_was_killed_leaves_nothing_running_and_starts_again_on_its_ports(
    small_stack: SmallStack,
) -> None:
    """Its record is stale, its lock is not: the next start waits for the old servers to be gone."""
    up = small_stack.up()
    before = small_stack.until(is_up)
    up.kill()
    up.wait()
    assert small_stack.paths.run_record.is_file()
    assert find_run(small_stack.paths) is None
    small_stack.up()
    after = small_stack.until(is_up)
    assert [server.url for server in after.servers.values()] == [
        server.url for server in before.servers.values()
    ]
    assert len(small_stack.servers()) == 5


def test_stopping_a_stack_that_does_not_run_is_no_error(
    small_stack: SmallStack, capsys: pytest.CaptureFixture[str]
) -> None:
    """Not even if there is an old record whose process number another process has now."""
    small_stack.paths.create()
    RunRecord(os.getpid(), 0, "2026-01-01T00:00:00+00:00", "up").write(small_stack.paths)
    down(small_stack.paths)
    assert capsys.readouterr().out == "The stack is not running.\n"


def test_no_other_process_is_stopped_instead_of_the_stack(small_stack: SmallStack) -> None:
    """A record whose process started at another time is not believed."""
    small_stack.up()
    record = small_stack.until(is_up)
    bystander = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    RunRecord(bystander.pid, record.started_ticks, record.since, "up").write(small_stack.paths)
    with pytest.raises(UserError, match=f"not as process {bystander.pid}"):
        down(small_stack.paths)
    assert bystander.poll() is None
    bystander.kill()
    bystander.wait()
    record.write(small_stack.paths)


def test_a_setup_that_fails_stops_the_stack_and_its_log_is_quoted(small_stack: SmallStack) -> None:
    """Half a stack would look like a whole one."""
    up = small_stack.up(sys.executable, "-c", "import sys; sys.exit('the bucket cannot be made')")
    assert up.wait(60) == 1
    assert "setting up the stack failed" in small_stack.log.read_text()
    assert "the bucket cannot be made" in small_stack.log.read_text()
    assert small_stack.servers() == []


def test_a_port_that_another_program_took_is_replaced_and_reported(small_stack: SmallStack) -> None:
    """The stack starts; addresses in its settings follow."""
    small_stack.paths.create()
    ports = ensure_ports(small_stack.paths)
    with socket.socket() as other_program:
        other_program.bind((LOOPBACK, ports["prefect"]))
        other_program.listen()
        small_stack.up()
        record = small_stack.until(is_up)
    assert (
        f"port {ports['prefect']} is taken by another program: prefect moves to"
        in small_stack.log.read_text()
    )
    assert record.servers["prefect"].url != f"http://{LOOPBACK}:{ports['prefect']}"
    assert record.servers["s3"].url == f"http://{LOOPBACK}:{ports['s3']}"
    assert (
        read_environment_file(small_stack.paths.environment)["PREFECT_API_URL"]
        == f"{record.servers['prefect'].url}/api"
    )


@pytest.mark.server  # it looks for free ports
def test_the_folder_of_an_older_stack_goes_on_working(tmp_path: Path) -> None:
    """Variables and servers with new names are renamed on disk; credentials, ports and own additions stay."""
    paths = StackPaths(tmp_path / ".trashnet")
    paths.create()
    ports = ensure_ports(paths)
    environment = ensure_environment(paths, ports) | {"TRASHNET_S3_BUCKET": "own"}
    lines = [f"{name}={value}\n" for name, value in environment.items()]
    paths.environment.write_text("".join(lines).replace("_GATEWAY_", "_DOORBELL_"))
    paths.ports.write_text(paths.ports.read_text().replace("gateway", "doorbell"))
    with pytest.raises(UserError, match="TRASHNET_DOORBELL_SECRET is TRASHNET_GATEWAY_SECRET now"):
        load_settings(paths.environment)

    assert ensure_ports(paths) == ports
    assert ensure_environment(paths, ports) == environment
    assert "DOORBELL" not in paths.environment.read_text()
    assert json.loads(paths.ports.read_text()) == {"ports": ports}
    assert load_settings(paths.environment).gateway_url == f"http://{LOOPBACK}:{ports['gateway']}"


def test_postgresql_gives_every_test_a_database(postgres_url: str) -> None:
    """The ledger's tests run on it: by the driver that the product ships with."""
    import sqlalchemy

    engine = sqlalchemy.create_engine(postgres_url)
    with engine.connect() as connection:
        assert (
            connection.execute(
                sqlalchemy.text("select count(*) from pg_tables where schemaname = 'public'")
            ).scalar()
            == 0
        )
    engine.dispose()


def test_label_studio_may_call_this_machine_and_no_other_private_address(
    label_studio_server: LabelStudioServer,
) -> None:
    """Its guard stays on but for the event gateway's address."""
    headers = {"Authorization": f"Token {label_studio_server.token}"}
    with httpx.Client(base_url=label_studio_server.url, headers=headers, timeout=60, trust_env=False) as http:
        project = http.post("/api/projects", json={"title": "guarded"}).json()["id"]
        hook = {"project": project, "actions": ["ANNOTATION_CREATED"], "send_for_all_actions": False}
        assert (
            http.post("/api/webhooks/", json=hook | {"url": "http://127.0.0.1:4300/label-studio"}).status_code
            == 201
        )
        for address in ("127.0.0.2", "10.0.0.1", "169.254.169.254", "192.168.1.1"):
            assert http.post("/api/webhooks/", json=hook | {"url": f"http://{address}/"}).status_code in {
                400,
                403,
            }
        http.delete(f"/api/projects/{project}")
