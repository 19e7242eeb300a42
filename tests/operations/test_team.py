"""deploy/compose.yaml, started without containers: its own commands, environment, host names, ports and
health checks, as processes.

They run in a network and mount namespace of their own, in which the services' names are addresses of this
machine. What an image would bring stands in: this machine's PostgreSQL, Label Studio from PyPI, and rclone
where the file has SeaweedFS.
"""

import os
import secrets
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from benchmarks.support.postgres import postgres_program, run_quietly, unprivileged
from operations.stack.process import Server, spawn
from tests.conftest import REPOSITORY
from tests.ingest.uploads import sidecar, upload
from tests.operations.test_compose import SERVICES, VARIABLE, example

# Label Studio's guard lets only the network of the event gateway through, so `gateway.internal` is there.
HOSTS = "127.0.0.1 localhost postgres s3 label-studio prefect\n198.18.77.2 gateway.internal gateway\n"
WORKER_HEALTH = "18080"  # 8080 here is Label Studio's already; between containers it is free
ENTER = (
    "ip link set lo up && ip address add 198.18.77.2/32 dev lo && mount --bind {hosts} /etc/hosts && "
    "exec {python} -c 'import sys; from pathlib import Path; from tests.operations.test_team import team; "
    "team(Path(sys.argv[1]))' {root}"
)


def filled_in(root: Path) -> dict[str, str]:
    """deploy/.env as a team would write it."""
    origin = root / "origin"
    subprocess.run(["git", "clone", "--quiet", "--bare", REPOSITORY, origin], check=True)
    values = {name: value or secrets.token_hex(20) for name, value in example().items()}
    return values | {
        "REPOSITORY": str(origin),
        "LABEL_STUDIO_EMAIL": "ann@example.org",
        "PREFECT_AUTH": f"flywheel:{secrets.token_hex(8)}",
        "S3_PUBLIC_URL": "http://s3:8333",
        "LABEL_STUDIO_PUBLIC_URL": "http://label-studio:8080",
        "PREFECT_PUBLIC_URL": "http://prefect:4200",
    }


class Team:
    """The services that were started."""

    def __init__(self, root: Path) -> None:
        """Nothing runs yet."""
        self.root, self.values, self.running = root, filled_in(root), list[Server]()

    def environment(self, name: str) -> dict[str, str]:
        """A service's, with every variable replaced by its value; volumes lie in our folder."""
        variables = {
            key: VARIABLE.sub(lambda m: self.values[m[1]], str(value))
            for key, value in SERVICES[name].get("environment", {}).items()
        }
        variables = {
            key: value.replace("/flywheel/", f"{self.root}/flywheel/") for key, value in variables.items()
        }
        return variables | {
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "PREFECT_WORKER_WEBSERVER_PORT": WORKER_HEALTH,
        }

    def healthy(self, name: str) -> bool:
        """What its health check says."""
        kind, *command = SERVICES[name]["healthcheck"]["test"]
        assert kind == "CMD"
        if name == "postgres":
            command[0] = postgres_program(command[0])
        if name == "worker":
            command[-1] = command[-1].replace(":8080", f":{WORKER_HEALTH}")
        return subprocess.run(command, env=self.environment(name), capture_output=True).returncode == 0

    def start(
        self,
        name: str,
        command: list[Any] | None = None,
        healthy: Callable[[], bool] | None = None,
        **options: Any,
    ) -> None:
        """Start a service by its own command, or by what stands in for its image's, and wait for its health
        check.
        """
        log, began = self.root / f"{name}.log", time.monotonic()
        options = {"environment": self.environment(name), "cwd": REPOSITORY} | options
        ready = healthy or (lambda: self.healthy(name))
        command = command or [part.replace("$$", "$") for part in SERVICES[name]["command"]]
        server = spawn(name, command, url="", log=log, is_healthy=ready, **options)
        self.running.append(server)
        server.wait_until_healthy(300)
        print(f"{name} is healthy after {time.monotonic() - began:.0f} s", flush=True)

    def start_postgres(self) -> None:
        """A cluster on the port that addresses without one mean, and the file's own script on it."""
        folder = self.root / "postgres"
        folder.mkdir()
        programs, data = [postgres_program(name) for name in ("initdb", "postgres", "psql")], folder / "data"
        run_quietly(
            [*unprivileged(folder), programs[0], "-D", data, "-U", "postgres", "-E", "UTF8", "--locale=C"],
            folder,
        )
        (data / "pg_hba.conf").write_text(
            "host all postgres 127.0.0.1/32 trust\nhost all all 127.0.0.1/32 scram-sha-256\n"
        )
        quick = ["-c", "unix_socket_directories=", "-c", "fsync=off"]
        self.start("postgres", [*unprivileged(folder), programs[1], "-D", data, *quick], cwd=data)
        environment = self.environment("postgres") | {"POSTGRES_USER": "postgres", "PGHOST": "127.0.0.1"}
        environment["PATH"] += f":{Path(programs[2]).parent}"
        subprocess.run(["sh", REPOSITORY / "deploy/databases.sh"], env=environment, check=True)

    def start_all(self) -> None:
        """In the order that `depends_on` gives."""
        from operations.stack.servers import find_label_studio, find_rclone, is_s3_answering

        self.start_postgres()
        keys = f'"{self.values["S3_ACCESS_KEY"]},{self.values["S3_SECRET_KEY"]}"'
        (self.root / "s3").mkdir()
        rclone = [find_rclone(), "serve", "s3", "--addr", ":8333", "--config", "/dev/null", self.root / "s3"]
        healthy = partial(is_s3_answering, "http://s3:8333")
        self.start("s3", rclone, healthy, environment={"RCLONE_AUTH_KEY": keys})
        self.start("prefect")
        self.start("gateway")
        (self.root / "label-studio").mkdir()
        environment = self.environment("label-studio") | {
            "LABEL_STUDIO_BASE_DATA_DIR": str(self.root / "label-studio")
        }
        address = ["--port", "8080", "--internal-host", "127.0.0.1"]
        command = [find_label_studio(), "start", "--no-browser", *address]
        self.start("label-studio", command, environment=environment)
        subprocess.run(
            SERVICES["setup"]["command"],
            env=os.environ | self.environment("setup"),
            cwd=REPOSITORY,
            check=True,
        )
        self.start("worker")

    def check_secrets(self) -> None:
        """No secret is on a command line or in a log."""
        given = {name for name, value in example().items() if not value}
        secrets_ = {name: self.values[name] for name in given - {"REPOSITORY", "LABEL_STUDIO_EMAIL"}}
        secrets_["PREFECT_AUTH"] = secrets_["PREFECT_AUTH"].partition(":")[2]
        lines = subprocess.check_output(["ps", "axww", "-o", "args"], text=True)
        logs = {log.name: log.read_text(errors="replace") for log in self.root.glob("*.log")}
        shown = [
            (name, place)
            for name, secret in secrets_.items()
            for place, text in {**logs, "a command line": lines}.items()
            if secret in text
        ]
        assert len(secrets_) == 10, sorted(secrets_)
        assert not shown, shown


def team(root: Path) -> None:
    """Start everything, upload a frame as a bin would, and wait until it is a task before the annotators.

    In the namespaces.
    """
    from trashnet.ledger import open_ledger
    from trashnet.settings import load_settings
    from trashnet.store import open_store

    services = Team(root)
    try:
        services.start_all()
        os.environ |= services.environment("worker")
        settings = load_settings()
        ledger, store = open_ledger(settings.ledger_url), open_store(settings)
        noise = np.random.default_rng(1).integers(0, 255, (60, 80, 3), np.uint8)
        jpeg = cv2.imencode(".jpg", cv2.resize(noise, (640, 480), interpolation=cv2.INTER_CUBIC))[1].tobytes()
        upload(store, jpeg, sidecar())
        began = time.monotonic()
        while ledger.count_by_state().get("tasked", 0) == 0:
            if time.monotonic() - began > 300:
                raise SystemExit(f"the frame is no task after 300 s: {ledger.count_by_state()}")
            time.sleep(1)
        print(f"a frame is a task {time.monotonic() - began:.0f} s after its upload")
        services.check_secrets()
        ledger.close()
    finally:
        for server in reversed(services.running):
            server.stop()


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_a_team_s_services_come_up_and_a_frame_becomes_a_task(tmp_path: Path) -> None:
    """PostgreSQL behind everything, passwords everywhere, Label Studio's guard on: from an upload, by events
    alone, to the annotators.
    """
    (tmp_path / "hosts").write_text(HOSTS)
    become_root = [] if os.geteuid() == 0 else ["--map-root-user"]
    inside = ENTER.format(hosts=tmp_path / "hosts", python=sys.executable, root=tmp_path)
    done = subprocess.run(
        ["unshare", "--net", "--mount", *become_root, "sh", "-c", inside],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=1400,
    )
    assert done.returncode == 0, done.stdout + done.stderr[-4000:]
    assert "a frame is a task" in done.stdout
