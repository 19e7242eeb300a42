"""What the embedded stack keeps in its folder: ports, credentials, its process and the servers' states."""

import fcntl
import json
import os
import secrets
import tempfile
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from operations.stack.process import LOOPBACK, is_port_free
from trashnet.errors import UserError
from trashnet.files import write_json
from trashnet.settings import RENAMED_VARIABLES, STACK_FOLDER

Phase = Literal["starting", "up", "stopping"]
ServerState = Literal["starting", "up", "silent", "down"]

SERVERS_WITH_PORT = ("s3", "label_studio", "prefect", "gateway")
PREFECT_DATABASE_VARIABLE = "PREFECT_SERVER_DATABASE_CONNECTION_URL"
# Where a database server may stand in for a file in the stack's folder, with what lies in it.
DATABASE_VARIABLES = {"TRASHNET_LEDGER_URL": "the ledger", PREFECT_DATABASE_VARIABLE: "Prefect's data"}
RENAMED_SERVERS = {"doorbell": "gateway"}  # in version 0.2: old name -> new name
# Below the range that kernels take ports of outgoing connections from, so that a kept port is still free at
# the next start.
MIN_PORT, MAX_PORT = 15000, 29999
MAX_PORT_ATTEMPTS = 1000


@dataclass(frozen=True)
class StackPaths:
    """The files and folders in the stack's folder."""

    folder: Path = STACK_FOLDER

    @property
    def environment(self) -> Path:
        """Settings and credentials; only the owner may read them."""
        return self.folder / "stack.env"

    @property
    def ports(self) -> Path:
        """The ports that were chosen at the first start."""
        return self.folder / "stack.json"

    @property
    def run_record(self) -> Path:
        """Which process runs the stack, and the states of its servers.

        A crash leaves it behind: see :func:`find_run`.
        """
        return self.folder / "run.json"

    @property
    def lock(self) -> Path:
        """Locked by the process that runs the stack. The kernel releases the lock of a dead process."""
        return self.folder / "up.lock"

    @property
    def logs(self) -> Path:
        """The folder with one log per server."""
        return self.folder / "logs"

    def create(self) -> None:
        """Create the folder with access for its owner only. Raises :class:`UserError` if that fails."""
        try:
            self.logs.mkdir(parents=True, exist_ok=True)
            self.folder.chmod(0o700)
        except OSError as error:
            raise UserError(
                f"{self.folder}: the stack's folder cannot be created ({error.strerror}); "
                "start the stack in a folder where you may write"
            ) from None


@dataclass
class ServerRecord:
    """The state of one server since ``since`` (ISO time, UTC).

    ``restarts`` counts those of this run of the stack.
    """

    name: str
    state: ServerState
    since: str
    url: str = ""
    restarts: int = 0
    log: str = ""
    note: str = ""


@dataclass
class RunRecord:
    """One run of the stack.

    ``started_ticks`` tells its process from a later one with the same number (0 where the system has no
    ticks).
    """

    pid: int
    started_ticks: int
    since: str
    phase: Phase
    servers: dict[str, ServerRecord] = field(default_factory=dict)

    def write(self, paths: StackPaths) -> None:
        """Replace the record on disk."""
        write_json(paths.run_record, asdict(self))


def read_run_record(paths: StackPaths) -> RunRecord | None:
    """The newest record, or ``None`` if there is none that can be read."""
    try:
        value = json.loads(paths.run_record.read_text(encoding="utf-8"))
        servers = {name: ServerRecord(**server) for name, server in value.pop("servers").items()}
        return RunRecord(**value, servers=servers)
    except (OSError, ValueError, TypeError, KeyError):
        return None


def find_run(paths: StackPaths) -> RunRecord | None:
    """The record of the stack that runs in this folder now; ``None`` if none does, whatever a crash left."""
    try:
        handle = os.open(paths.lock, os.O_RDONLY)
    except OSError:
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return read_run_record(paths) or RunRecord(0, 0, "", "starting")
    finally:
        os.close(handle)
    return None


@contextmanager
def exclusive_lock(paths: StackPaths) -> Iterator[None]:
    """Be the only process that runs the stack of this folder.

    Raises :class:`UserError` that names the other one.
    """
    handle = os.open(paths.lock, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        other = read_run_record(paths)
        owner = f"by process {other.pid} since {other.since}" if other else "by another process"
        raise UserError(
            f"{paths.folder}: this stack is already running, {owner}. "
            "`trashnet status` shows it, `trashnet down` stops it"
        ) from None
    try:
        yield
    finally:
        os.close(handle)


def read_start_ticks(pid: int) -> int | None:
    """When a process started, in clock ticks since boot.

    ``None`` if there is no such process, 0 where the system has no ``/proc``.
    """
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
    except FileNotFoundError:
        return None if Path("/proc/self/stat").exists() else 0


def read_environment_file(path: Path) -> dict[str, str]:
    """The variables in a file of ``NAME=value`` lines; empty if there is no such file."""
    if not path.is_file():
        return {}
    lines = path.read_text(encoding="utf-8").splitlines()
    pairs = (line.partition("=") for line in lines if "=" in line and not line.startswith("#"))
    return {name: value for name, _, value in pairs}


def ensure_ports(paths: StackPaths, *, replace: Collection[str] = ()) -> dict[str, int]:
    """The port of each server, as it was chosen at the first start.

    Servers without a port, and those in ``replace``, get a new one. Raises :class:`UserError` if the file of
    ports cannot be parsed.
    """
    stored: dict[str, Any] = {}
    kept: dict[str, int] = {}
    if paths.ports.is_file():
        try:
            stored = json.loads(paths.ports.read_text(encoding="utf-8"))["ports"]
            renamed = {RENAMED_SERVERS.get(name, name): int(port) for name, port in stored.items()}
            kept = {name: renamed[name] for name in SERVERS_WITH_PORT if name in renamed}
        except (ValueError, KeyError, TypeError, AttributeError):
            raise UserError(
                f"{paths.ports}: not the stack's ports; delete the file, and new ports are chosen"
            ) from None
    ports = {name: port for name, port in kept.items() if name not in replace}
    for name in SERVERS_WITH_PORT:
        if name not in ports:
            ports[name] = _choose_port(set(ports.values()))
    if ports != stored:
        write_json(paths.ports, {"ports": ports})
    return ports


def _choose_port(taken: set[int]) -> int:
    for _ in range(MAX_PORT_ATTEMPTS):
        port = MIN_PORT + secrets.randbelow(MAX_PORT - MIN_PORT + 1)
        if port not in taken and is_port_free(port):
            return port
    raise UserError(f"no free port on {LOOPBACK} between {MIN_PORT} and {MAX_PORT}")


def ensure_environment(paths: StackPaths, ports: dict[str, int]) -> dict[str, str]:
    """The stack's settings, which are also written to its folder with mode 0600.

    Credentials are created at the first start and kept, and so are variables that somebody added; addresses
    follow ``ports``. Variables that have a new name are renamed. The ledger and Prefect's database are files
    in the folder, unless :data:`DATABASE_VARIABLES` in our own environment name a database server; those are
    kept too.
    """
    stored = read_environment_file(paths.environment)
    kept = {RENAMED_VARIABLES.get(name, name): value for name, value in stored.items()}
    url = {name: f"http://{LOOPBACK}:{port}" for name, port in ports.items()}
    home = paths.folder.resolve()
    credentials: dict[str, Callable[[], str]] = {
        "TRASHNET_S3_ACCESS_KEY": lambda: secrets.token_hex(10),
        "TRASHNET_S3_SECRET_KEY": lambda: secrets.token_hex(20),
        "TRASHNET_LABEL_STUDIO_EMAIL": lambda: "annotator@localhost.localdomain",
        "TRASHNET_LABEL_STUDIO_PASSWORD": lambda: secrets.token_urlsafe(15),
        "TRASHNET_LABEL_STUDIO_TOKEN": lambda: secrets.token_hex(20),
        "TRASHNET_GATEWAY_SECRET": lambda: secrets.token_hex(20),
        "PREFECT_API_AUTH_STRING": lambda: f"flywheel:{secrets.token_hex(20)}",
    }
    addresses = {
        "TRASHNET_S3_ENDPOINT": url["s3"],
        "TRASHNET_LABEL_STUDIO_URL": url["label_studio"],
        "TRASHNET_GATEWAY_URL": url["gateway"],
        "TRASHNET_LEDGER_URL": f"sqlite:///{home / 'ledger.sqlite'}",
        "TRASHNET_CLONE": str(home / "clone"),
        "TRASHNET_REPOSITORY": str(home.parent),
        "PREFECT_API_URL": f"{url['prefect']}/api",
        "PREFECT_HOME": str(home / "prefect"),
    }
    created = {name: kept.get(name) or create() for name, create in credentials.items()}
    environment = kept | created | addresses | _database_servers(kept)
    if environment != stored or paths.environment.stat().st_mode & 0o077:
        lines = [f"{name}={value}\n" for name, value in sorted(environment.items())]
        write_private_text(paths.environment, "".join(lines))
    return environment


def _database_servers(kept: Mapping[str, str]) -> dict[str, str]:
    """The database servers that were chosen for this stack, now or at an earlier start."""
    chosen = {name: os.environ.get(name) or kept.get(name, "sqlite") for name in DATABASE_VARIABLES}
    return {name: url for name, url in chosen.items() if not is_sqlite(url)}


def is_sqlite(url: str) -> bool:
    """Whether a database's URL names an SQLite file."""
    return url.startswith("sqlite")


def write_private_text(path: Path, text: str) -> None:
    """Write ``text`` atomically to a file that only its owner can read, at every moment."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")  # mode 0600
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(path)
    finally:
        Path(name).unlink(missing_ok=True)
