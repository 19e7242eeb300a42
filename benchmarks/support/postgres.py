"""A PostgreSQL server on a new cluster, on loopback. Teams keep their ledger on one of their own."""

import os
import secrets
import shutil
import signal
import subprocess
from dataclasses import dataclass
from pathlib import Path

import psycopg

from operations.stack import Server, find_free_port
from operations.stack.process import spawn
from trashnet.errors import UserError

START_SECONDS = 60.0


@dataclass(frozen=True)
class PostgresCluster:
    """A PostgreSQL server's data in a folder of its own, which nobody but the server writes to."""

    folder: Path
    port: int

    @classmethod
    def create(cls, folder: Path) -> "PostgresCluster":
        """A new cluster, whose server does not run yet. Raises :class:`UserError` without PostgreSQL."""
        folder.mkdir(exist_ok=True)
        options = ["-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync"]
        initdb = postgres_program("initdb")
        run_quietly([*unprivileged(folder), initdb, "-D", folder / "data", *options], folder)
        return cls(folder, find_free_port())

    @property
    def url(self) -> str:
        """The server's address without a database, for SQLAlchemy."""
        return f"postgresql+psycopg://postgres@127.0.0.1:{self.port}"

    def start(self, *, durable: bool = True) -> Server:
        """Start the server, and wait until it answers. A server that was killed recovers first.

        Without ``durable`` it does not wait for the disk, and a power cut may destroy the cluster.
        """
        settings = {"listen_addresses": "127.0.0.1", "unix_socket_directories": "", "timezone": "UTC"}
        if not durable:
            settings |= {"fsync": "off", "full_page_writes": "off", "synchronous_commit": "off"}
        flags = [flag for name, value in settings.items() for flag in ("-c", f"{name}={value}")]
        program, data = postgres_program("postgres"), self.folder / "data"
        server = spawn(
            "PostgreSQL",
            [*unprivileged(self.folder), program, "-D", data, "-p", str(self.port), *flags],
            url=self.url,
            log=self.folder / "postgres.log",
            is_healthy=lambda: _accepts(self.port),
            cwd=data,
            stop_signal=signal.SIGINT,  # after SIGTERM it would wait for every connection to be closed
        )
        return server.wait_until_healthy(START_SECONDS)


def new_database(server_url: str) -> str:
    """Make an empty database on a PostgreSQL server; its address for SQLAlchemy."""
    name = f"scratch_{secrets.token_hex(6)}"
    with psycopg.connect(f"{server_url}/postgres".replace("+psycopg", ""), autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    return f"{server_url}/{name}"


def postgres_program(name: str) -> str:
    """Where one of PostgreSQL's programs lies, the newest version's. Raises :class:`UserError`."""
    # Debian keeps the servers off the path, one folder per version.
    installed = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), key=lambda path: int(path.parts[4]))
    found = str(installed[-1]) if installed else shutil.which(name)
    if found is None:
        raise UserError(f"no PostgreSQL on this machine ({name} was not found): `make postgres` installs it")
    return found


def unprivileged(folder: Path) -> list[str]:
    """What to put before a command so that it does not run as root, which PostgreSQL refuses.

    ``folder`` is made that user's.
    """
    if os.geteuid() != 0:
        return []
    shutil.chown(folder, "nobody", "nogroup")
    for parent in (folder, *folder.parents):  # pytest keeps its folders to their owner
        if parent.owner() in {"root", "nobody"} and parent != Path("/"):
            parent.chmod(parent.stat().st_mode | 0o011)
    return ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups"]


def run_quietly(command: list[str | Path], folder: Path) -> None:
    """Run a command in a folder. Raises :class:`UserError` with its error output if it fails."""
    done = subprocess.run(
        [*map(str, command)], cwd=folder, capture_output=True, text=True, env=os.environ | {"LC_ALL": "C"}
    )
    if done.returncode:
        raise UserError(f"{command[-1]}: ended with {done.returncode}.\n{done.stderr}")


def _accepts(port: int) -> bool:
    try:
        psycopg.connect(f"postgresql://postgres@127.0.0.1:{port}/postgres", connect_timeout=2).close()
    except psycopg.OperationalError:
        return False
    return True
