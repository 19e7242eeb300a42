"""What the embedded stack keeps in its folder: ports, credentials, who runs it now, and how its servers are."""

import fcntl
import json
import os
import secrets
import tempfile
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from operations.stack.process import LOOPBACK, port_free
from trashnet.errors import UserError
from trashnet.files import write_json
from trashnet.settings import RENAMED_VARIABLES, STACK

Phase = Literal["starting", "up", "stopping"]
ServerState = Literal["starting", "up", "silent", "down"]

PORTED = ("s3", "label_studio", "prefect", "gateway")
# Below the range that kernels take outgoing connections' ports from, so that a kept port is still free the
# next day.
FIRST_PORT, LAST_PORT = 15000, 29999


@dataclass(frozen=True)
class Places:
    """Where things are in the stack's folder."""

    folder: Path = STACK

    @property
    def environment(self) -> Path:
        """Settings and credentials, readable by their owner only."""
        return self.folder / "stack.env"

    @property
    def ports(self) -> Path:
        """The ports that were chosen at the first start."""
        return self.folder / "stack.json"

    @property
    def run(self) -> Path:
        """Who runs the stack, and how its servers are; left behind by a crash, so believe it only while :func:`running`."""
        return self.folder / "run.json"

    @property
    def lock(self) -> Path:
        """Held by the process that runs the stack, and released by the kernel whatever becomes of it."""
        return self.folder / "up.lock"

    @property
    def logs(self) -> Path:
        """One log per server."""
        return self.folder / "logs"

    def make(self) -> None:
        """Make the folder, for its owner only. Raises :class:`UserError` if that cannot be."""
        try:
            self.logs.mkdir(parents=True, exist_ok=True)
            self.folder.chmod(0o700)
        except OSError as error:
            raise UserError(
                f"{self.folder}: the stack's folder cannot be made ({error.strerror}); start it where you may write"
            ) from None


@dataclass
class ServerRecord:
    """How one server is: ``since`` is an ISO time in UTC, ``restarts`` counts those of this run of the stack."""

    name: str
    state: ServerState
    since: str
    url: str = ""
    restarts: int = 0
    log: str = ""
    note: str = ""


@dataclass
class RunRecord:
    """One run of the stack. ``started_ticks`` tells its process from a later one with the same number (0 where the system does not say)."""

    pid: int
    started_ticks: int
    since: str
    phase: Phase
    servers: dict[str, ServerRecord] = field(default_factory=dict)

    def write(self, places: Places) -> None:
        """Replace the record on disk."""
        write_json(places.run, asdict(self))


def read_run(places: Places) -> RunRecord | None:
    """The newest record, or None if there is none that can be read."""
    try:
        value = json.loads(places.run.read_text(encoding="utf-8"))
        servers = {name: ServerRecord(**server) for name, server in value.pop("servers").items()}
        return RunRecord(**value, servers=servers)
    except (OSError, ValueError, TypeError, KeyError):
        return None


def running(places: Places) -> RunRecord | None:
    """The record of the stack that runs now in this folder; None if none does, whatever a crash has left there."""
    try:
        handle = os.open(places.lock, os.O_RDONLY)
    except OSError:
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return read_run(places) or RunRecord(0, 0, "", "starting")
    finally:
        os.close(handle)
    return None


@contextmanager
def alone(places: Places) -> Iterator[None]:
    """Be the only one to run the stack of this folder. Raises :class:`UserError` that names the other one."""
    handle = os.open(places.lock, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        other = read_run(places)
        who = f"by process {other.pid} since {other.since}" if other else "by another process"
        raise UserError(
            f"{places.folder}: this stack is already running, {who}. `trashnet status` shows it, `trashnet down` ends it"
        ) from None
    try:
        yield
    finally:
        os.close(handle)


def started_ticks(pid: int) -> int | None:
    """When a process started, in clock ticks since the machine did; None if there is no such process, 0 where the system does not say."""
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
    except FileNotFoundError:
        return None if Path("/proc/self/stat").exists() else 0


def read_environment(path: Path) -> dict[str, str]:
    """The variables in a file of ``NAME=value`` lines; none if there is no such file."""
    if not path.is_file():
        return {}
    lines = (
        line.partition("=")
        for line in path.read_text(encoding="utf-8").splitlines()
        if "=" in line and not line.startswith("#")
    )
    return {name: value for name, _, value in lines}


def ensure_ports(places: Places, *, anew: Collection[str] = ()) -> dict[str, int]:
    """The ports of the stack's servers: those kept from the first start, chosen now where there is none and for the servers ``anew``.

    Raises :class:`UserError` if the file is not ours.
    """
    kept: Any = {}
    if places.ports.is_file():
        try:
            kept = json.loads(places.ports.read_text(encoding="utf-8"))["ports"]
            kept = {name: int(kept[name]) for name in PORTED if name in kept}
        except (ValueError, KeyError, TypeError):
            raise UserError(
                f"{places.ports}: not the stack's ports; delete it and new ones are chosen"
            ) from None
    chosen: dict[str, int] = {name: port for name, port in kept.items() if name not in anew}
    for name in PORTED:
        if name not in chosen:
            chosen[name] = _choose_port(set(chosen.values()))
    if chosen != kept:
        write_json(places.ports, {"ports": chosen})
    return chosen


def _choose_port(taken: set[int]) -> int:
    for _ in range(1000):
        port = FIRST_PORT + secrets.randbelow(LAST_PORT - FIRST_PORT + 1)
        if port not in taken and port_free(port):
            return port
    raise UserError(f"no free port on {LOOPBACK} between {FIRST_PORT} and {LAST_PORT}")


def ensure_environment(places: Places, ports: dict[str, int]) -> dict[str, str]:
    """The stack's settings: credentials made at the first start and kept, addresses by ``ports``. Also written to the folder, mode 0600."""
    kept = {
        RENAMED_VARIABLES.get(name, name): value
        for name, value in read_environment(places.environment).items()
    }
    url = {name: f"http://{LOOPBACK}:{port}" for name, port in ports.items()}
    home = places.folder.resolve()
    made: dict[str, Callable[[], str]] = {
        "TRASHNET_S3_ACCESS_KEY": lambda: secrets.token_hex(10),
        "TRASHNET_S3_SECRET_KEY": lambda: secrets.token_hex(20),
        "TRASHNET_LABEL_STUDIO_EMAIL": lambda: "annotator@localhost.localdomain",
        "TRASHNET_LABEL_STUDIO_PASSWORD": lambda: secrets.token_urlsafe(15),
        "TRASHNET_LABEL_STUDIO_TOKEN": lambda: secrets.token_hex(20),
        "TRASHNET_GATEWAY_SECRET": lambda: secrets.token_hex(20),
    }
    fixed = {
        "TRASHNET_S3_ENDPOINT": url["s3"],
        "TRASHNET_LABEL_STUDIO_URL": url["label_studio"],
        "TRASHNET_GATEWAY_URL": url["gateway"],
        "TRASHNET_LEDGER_URL": f"sqlite:///{home / 'ledger.sqlite'}",
        "TRASHNET_CLONE": str(home / "clone"),
        "TRASHNET_REPOSITORY": str(home.parent),
        "PREFECT_API_URL": f"{url['prefect']}/api",
        "PREFECT_HOME": str(home / "prefect"),
    }
    wanted = kept | {name: kept.get(name) or make() for name, make in made.items()} | fixed
    if wanted != kept or places.environment.stat().st_mode & 0o077:
        write_private(
            places.environment, "".join(f"{name}={value}\n" for name, value in sorted(wanted.items()))
        )
    return wanted


def write_private(path: Path, text: str) -> None:
    """Write ``text`` whole or not at all, at no moment readable by others."""
    handle, name = tempfile.mkstemp(
        dir=path.parent, prefix=f".{path.name}.", suffix=".part"
    )  # made with mode 0600
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as out:
            out.write(text)
            out.flush()
            os.fsync(out.fileno())
        Path(name).replace(path)
    finally:
        Path(name).unlink(missing_ok=True)
