"""How each server of the embedded_servers stack is started: what it is given of ports, credentials and
folders.
"""

from collections.abc import Callable, Mapping
from pathlib import Path

from operations.stack import servers
from operations.stack.process import Server
from operations.stack.run_state import StackPaths

# The stack's paths, the repository, the environment of stack.env, the ports, and how many flows run at once.
ServerFactories = Callable[
    [StackPaths, Path, Mapping[str, str], Mapping[str, int], int], Mapping[str, Callable[[], Server]]
]


def embedded_servers(
    paths: StackPaths, root: Path, environment: Mapping[str, str], ports: Mapping[str, int], flows: int
) -> Mapping[str, Callable[[], Server]]:
    """S3, Label Studio, Prefect, worker and event gateway, each by its name.

    A maker called again starts its server again with its data.
    """
    logs = paths.logs
    prefect_home, prefect_url = paths.folder / "prefect", environment["PREFECT_API_URL"].removesuffix("/api")
    settings = {name: value for name, value in environment.items() if name.startswith("TRASHNET_")}
    token, email, password = (
        environment[f"TRASHNET_LABEL_STUDIO_{name}"] for name in ("TOKEN", "EMAIL", "PASSWORD")
    )

    def s3() -> Server:
        keys = environment["TRASHNET_S3_ACCESS_KEY"], environment["TRASHNET_S3_SECRET_KEY"]
        return servers.spawn_s3(paths.folder / "s3", ports["s3"], *keys, log=logs / "s3.log")

    def label_studio() -> Server:
        folder, port, s3_endpoint = (
            paths.folder / "label-studio",
            ports["label_studio"],
            environment["TRASHNET_S3_ENDPOINT"],
        )
        return servers.spawn_label_studio(
            folder, port, token, email, password, s3_endpoint, log=logs / "label_studio.log"
        )

    def prefect() -> Server:
        return servers.spawn_prefect(prefect_home, ports["prefect"], log=logs / "prefect.log")

    def worker() -> Server:
        return servers.spawn_worker(
            prefect_home, prefect_url, settings, limit=flows, root=root, log=logs / "worker.log"
        )

    def gateway() -> Server:
        return servers.spawn_gateway(
            prefect_home, ports["gateway"], prefect_url, settings, root=root, log=logs / "gateway.log"
        )

    return {"s3": s3, "label_studio": label_studio, "prefect": prefect, "worker": worker, "gateway": gateway}
