"""Tasks per second into Label Studio: `request_labels` against a bare `import_tasks` of the same tasks.

    python benchmarks/label_studio.py [--tasks 1000] [--rounds 3]

Both go into one real Label Studio, started here on loopback with an S3 server beside it (about a minute), by
turns and into projects of their own; the frames have five pre-labels each and no picture, which no import
looks at. `request_labels` also looks up which frames have tasks already and moves every frame on in the
ledger.
"""

import argparse
import secrets
import statistics
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from labeling import Client, LabelingParams, Project, connect, ensure_project, request_labels
from labeling.tasks import task_of
from operations.stack import find_free_port, start_label_studio, start_s3
from trashnet.boxes import Box
from trashnet.ledger import FrameRow, Ledger, open_ledger
from trashnet.params import load_params
from trashnet.settings import Settings
from trashnet.store import open_store
from trashnet.taxonomy import load_taxonomy

SIDE = 640


def frames(count: int, names: tuple[str, ...]) -> list[FrameRow]:
    """Accepted frames whose bin saw five items on each."""
    rows = []
    for number in range(count):
        sha = secrets.token_hex(32)
        seen = tuple(
            Box(names[(number + i) % len(names)], 60.0 * i, 50.0, 55.0, 90.0, score=0.9 - 0.1 * i)
            for i in range(5)
        )
        rows.append(
            FrameRow(
                sha256=sha,
                uploaded_sha256=sha,
                state="accepted",
                inbox_key=f"inbox/{sha}.json",
                key=f"frames/{sha}.jpg",
                bin_id="bin00",
                captured_at=datetime.now(UTC),
                detections=seen,
                width=SIDE,
                height=SIDE,
                score=1 - number / count,
                explanation="benchmark",
            )
        )
    return rows


def bare(
    client: Client, project: Project, rows: list[FrameRow], bucket: str, params: LabelingParams
) -> float:
    """Seconds of nothing but the imports, in the same batches."""
    tasks: list[Any] = [task_of(row, project, bucket, params) for row in rows]
    began = time.perf_counter()
    for start in range(0, len(tasks), params.import_batch_size):
        client.projects.import_tasks(
            project.id, request=tasks[start : start + params.import_batch_size], return_task_ids=True
        )
    return time.perf_counter() - began


def ours(
    client: Client, project: Project, ledger: Ledger, rows: list[FrameRow], store: Any, params: LabelingParams
) -> float:
    """Seconds of :func:`labeling.request_labels`."""
    for row in rows:
        ledger.add(row)
    began = time.perf_counter()
    created = request_labels(client, project, ledger, store, [row.sha256 for row in rows], params)
    seconds = time.perf_counter() - began
    if created != len(rows):
        raise SystemExit(f"{created} tasks were created of {len(rows)}")
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tasks", type=int, default=1000, help="in each of the rounds")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    params, taxonomy = load_params("labeling", LabelingParams), load_taxonomy()
    token, key, secret = secrets.token_hex(20), secrets.token_hex(8), secrets.token_hex(20)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        s3 = start_s3(folder / "s3", find_free_port(), key, secret)
        studio = start_label_studio(
            folder / "studio", find_free_port(), token, "bench@example.org", secrets.token_hex(12), s3.url
        )
        try:
            settings = Settings(
                _env_file=None,
                s3_endpoint=s3.url,
                s3_access_key=key,
                s3_secret_key=SecretStr(secret),
                label_studio_url=studio.url,
                label_studio_token=SecretStr(token),
                gateway_url="http://127.0.0.1:9",
                gateway_secret=SecretStr(secrets.token_hex(16)),
            )
            client, store = connect(settings), open_store(settings)
            ledger = open_ledger(f"sqlite:///{folder}/ledger.sqlite")
            projects = [
                ensure_project(
                    client, settings.model_copy(update={"label_studio_project": title}), taxonomy, params
                )
                for title in ("bare", "flywheel", "warm")
            ]
            bare(client, projects[2], frames(50, taxonomy.names), settings.s3_bucket, params)
            pairs = []
            for _ in range(options.rounds):
                rows = frames(options.tasks, taxonomy.names)
                seconds = (
                    bare(client, projects[0], rows, settings.s3_bucket, params),
                    ours(client, projects[1], ledger, rows, store, params),
                )
                pairs.append(seconds)
                print(
                    f"{options.tasks} tasks: bare {options.tasks / seconds[0]:.0f}/s, "
                    f"request_labels {options.tasks / seconds[1]:.0f}/s"
                )
        finally:
            studio.stop()
            s3.stop()
    best = [min(column) for column in zip(*pairs, strict=True)]
    ratio = statistics.median(one / two for one, two in pairs)
    print(
        f"labeling: bare import_tasks {options.tasks / best[0]:.0f} tasks/s, "
        f"request_labels {options.tasks / best[1]:.0f} tasks/s, "
        f"ratio {ratio:.2f} (median of {options.rounds} rounds)"
    )


if __name__ == "__main__":
    main()
