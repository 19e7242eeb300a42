"""How each server of the embedded stack is started: with which ports, credentials and folders."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from operations.stack import servers
from operations.stack.process import Server
from operations.stack.run_state import PREFECT_DATABASE_VARIABLE, StackPaths

ServerFactory = Callable[[], Server]
ServerFactories = Mapping[str, ServerFactory]  # by the server's name


@dataclass(frozen=True)
class StackConfig:
    """What the servers are started with.

    ``root`` is the repository, ``environment`` the variables of ``stack.env``, ``ports`` maps a server's name
    to its port, and ``max_flow_runs`` is how many flows the worker runs at a time. ``report`` is given one
    line per event.
    """

    paths: StackPaths
    root: Path
    environment: Mapping[str, str]
    ports: Mapping[str, int]
    max_flow_runs: int
    report: Callable[[str], None] = lambda line: None


def make_server_factories(config: StackConfig) -> ServerFactories:
    """The factories of all servers. A factory that is called again restarts its server with the same data."""
    paths, environment, ports, root = config.paths, config.environment, config.ports, config.root
    logs = paths.logs
    prefect_home, prefect_url = paths.folder / "prefect", environment["PREFECT_API_URL"].removesuffix("/api")
    auth = environment[servers.AUTH_VARIABLE]
    settings = {name: value for name, value in environment.items() if name.startswith("TRASHNET_")}
    settings[servers.AUTH_VARIABLE] = auth

    def s3() -> Server:
        keys = environment["TRASHNET_S3_ACCESS_KEY"], environment["TRASHNET_S3_SECRET_KEY"]
        return servers.spawn_s3(paths.folder / "s3", ports["s3"], *keys, log=logs / "s3.log")

    def label_studio() -> Server:
        return servers.spawn_label_studio(
            paths.folder / "label-studio",
            ports["label_studio"],
            environment["TRASHNET_LABEL_STUDIO_TOKEN"],
            environment["TRASHNET_LABEL_STUDIO_EMAIL"],
            environment["TRASHNET_LABEL_STUDIO_PASSWORD"],
            environment["TRASHNET_S3_ENDPOINT"],
            log=logs / "label_studio.log",
        )

    def prefect() -> Server:
        database, log = environment.get(PREFECT_DATABASE_VARIABLE), logs / "prefect.log"
        return servers.spawn_prefect(prefect_home, ports["prefect"], auth=auth, database=database, log=log)

    def worker() -> Server:
        for run in servers.end_abandoned_runs(prefect_home, prefect_url, auth):
            config.report(
                f"nobody runs {run} any more: it is marked as crashed, and what it left is taken up"
            )
        limit, log = config.max_flow_runs, logs / "worker.log"
        return servers.spawn_worker(prefect_home, prefect_url, settings, limit=limit, root=root, log=log)

    def gateway() -> Server:
        port, log = ports["gateway"], logs / "gateway.log"
        return servers.spawn_gateway(prefect_home, port, prefect_url, settings, root=root, log=log)

    return {"s3": s3, "label_studio": label_studio, "prefect": prefect, "worker": worker, "gateway": gateway}
