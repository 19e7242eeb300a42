"""What a turn costs with 1,000 and with 1,000,000 frames in the ledger, on SQLite and on PostgreSQL.

Every turn has 200 new frames, and takes them all the way: from a real S3 server's inbox to frames that a
candidate was trained on. Label Studio's requests, the dataset's files and the training itself are left out:
the ledger's size does not reach them.
"""

import hashlib
import json
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import median
from typing import Any, Literal, get_args

import click
import numpy as np
from sqlalchemy import Connection, Table, create_engine

from benchmarks.inbox import PARAMS, START, TAXONOMY, bench_store, upload
from benchmarks.support.postgres import PostgresCluster, new_database
from dataset import GrowthParams
from dataset.growth import grow_due
from flows.metrics import Metrics
from ingest import DecoderPool, admit_uploads, deduplicate, ingest_due, receive
from labeling import collection_due, request_due, room_for_tasks
from operations.status.collection import _query_ledger, _query_quotas
from selection import ScoringModels, SelectionParams, select_frames
from training import RetrainingParams, retrain_due
from trashnet.boxes import Box
from trashnet.errors import UserError
from trashnet.ledger import AnnotationRow, Ledger, TurnRow, open_ledger
from trashnet.ledger.frames import hash_bands
from trashnet.ledger.tables import annotations, frames, metadata, transitions, turns
from trashnet.params import load_params
from trashnet.settings import Settings
from trashnet.store import ObjectStore

ROOT = Path(__file__).parent.parent
NEW = 200  # frames of a turn
BINS, BURST, TURN = 100, 60, 5000  # of the past: bins, frames of a burst, frames of a turn of the dataset
BATCH = 20_000  # rows entered with one statement
SELECTION = load_params("selection", SelectionParams, ROOT / "params.yaml")
MODELS = ScoringModels(None, None, TAXONOMY)
GROWTH = load_params("growth", GrowthParams, ROOT / "params.yaml")
RETRAINING = load_params("retraining", RetrainingParams, ROOT / "params.yaml")
# A fleet sends more than people label: most frames wait. A number whatever the size of the ledger are those
# in the queue of annotators, and those that grew and that no candidate knows.
PAST = (("accepted", 60), ("released", 25), ("duplicate", 10), ("quarantined", 5))  # of 100
TASKED, LABELLED, UNTRAINED = 100, 50, 100
BOXES = json.dumps([Box("Drink can", 10, 10, 80, 60, 0.5).to_json()])
Database = Literal["sqlite", "postgresql"]
DATABASES: tuple[Database, ...] = get_args(Database)


def state_of(number: int) -> str:
    """The state of a frame of the past."""
    for state, count in (("tasked", TASKED), ("labelled", LABELLED), ("labelled", UNTRAINED)):
        if number < count:
            return state
        number -= count
    part = number % 100
    for state, share in PAST:
        if part < share:
            return state
        part -= share
    raise AssertionError("the shares are not 100")


def fill(ledger: Ledger, count: int) -> None:
    """A ledger with a past, with hashes and colours that are spread as those of different frames are.

    Rows go past the types of the tables, and the indexes are made afterwards: a million rows then take
    minutes, not an hour.
    """
    indexes = [index for table in metadata.tables.values() for index in table.indexes]
    with ledger.transaction() as connection:
        for index in indexes:
            index.drop(connection)
    shas = sorted(hashlib.sha256(f"old {number}".encode()).hexdigest() for number in range(count))
    rng = np.random.default_rng(1)
    order = rng.permutation(count)  # so that a state, bin or burst does not lie together in the table
    for first in range(0, count, BATCH):
        numbers = [int(number) for number in order[first : first + BATCH]]
        noise = rng.bytes(200 * len(numbers))
        rows = [
            frame(number, shas[first + at], noise[200 * at : 200 * at + 200])
            for at, number in enumerate(numbers)
        ]
        entered = [
            {"sha256": row["sha256"], "to_state": "received", "at": row["received_at"]} for row in rows
        ]
        answers = [
            annotation(at, row)
            for at, row in enumerate(rows, first)
            if row["state"] in {"labelled", "released"}
        ]
        with ledger.transaction() as connection:
            insert(connection, frames, rows)
            insert(connection, transitions, entered)
            insert(connection, annotations, answers)
    past = [turn(number) for number in range(1 + count // TURN)]
    with ledger.transaction() as connection:
        insert(connection, turns, past)
        for index in indexes:
            index.create(connection)


def insert(connection: Connection, table: Table, rows: Sequence[dict[str, Any]]) -> None:
    """Enter rows as the database's driver takes them."""
    if rows:
        mark = "?" if connection.dialect.name == "sqlite" else "%s"
        statement = (
            f"INSERT INTO {table.name} ({', '.join(rows[0])}) VALUES ({', '.join([mark] * len(rows[0]))})"
        )
        connection.exec_driver_sql(statement, [tuple(row.values()) for row in rows])


def frame(number: int, sha256: str, noise: bytes) -> dict[str, Any]:
    """A row of the past; ``noise`` makes its colours, its hash and its score."""
    state, phash = state_of(number), noise[192:].hex()
    when = written(START - timedelta(seconds=10 + number))
    grown = state == "released" or TASKED + LABELLED <= number < TASKED + LABELLED + UNTRAINED
    return {
        "sha256": sha256,
        "uploaded_sha256": sha256,
        "state": state,
        "inbox_key": f"inbox/bin00/x/{sha256}.json",
        "key": f"frames/{sha256}.jpg",
        "bin_id": f"bin{number % BINS:02d}",
        "burst": f"old {number // BINS // BURST}",
        "captured_at": when,
        "detections": BOXES,
        "width": 640,
        "height": 480,
        "phash": phash,
        "descriptor": noise[:192],
        "received_at": when,
        "changed_at": when,
        "duplicate_of": sha256 if state == "duplicate" else None,
        "quarantine_reason": "broken-image" if state == "quarantined" else None,
        "score": int(phash[:6], 16) / 16**6,
        "explanation": "nothing stands out",
        "model": "none",
        "task_id": number if state in {"tasked", "labelled", "released"} else None,
        "turn": turn(number // TURN)["name"] if grown else None,
        **hash_bands(phash),
    }


def annotation(at: int, row: dict[str, Any]) -> dict[str, Any]:
    """What somebody said about a frame of the past."""
    return {
        "installation": "old",
        "annotation_id": at,
        "task_id": row["task_id"],
        "sha256": row["sha256"],
        "annotator": "somebody",
        "labelled_at": row["captured_at"],
        "outcome": "boxes",
        "boxes": BOXES,
        "turn": row["turn"],
    }


def turn(number: int) -> dict[str, Any]:
    """A turn of the past."""
    name, when = f"{number:05d}-bins", written(START)
    return {"digest": name, "name": name, "state": "done", "started_at": when, "finished_at": when} | {
        "frames": TURN,
        "boxes": TURN,
    }


def written(when: datetime) -> str:
    """A time in UTC as SQLAlchemy writes it into SQLite; PostgreSQL reads it as well, its zone being UTC."""
    return f"{when:%Y-%m-%d %H:%M:%S.%f}"


@contextmanager
def bench_database(database: Database, folder: Path) -> Iterator[str]:
    """The address of an empty database; a server of its own runs behind it where it needs one."""
    folder.mkdir()
    if database == "sqlite":
        yield f"sqlite:///{folder}/ledger.sqlite"
        return
    server = PostgresCluster.create(folder).start()
    try:
        yield new_database(server.url)
    finally:
        server.stop()


@dataclass
class Stopwatch:
    """Seconds of steps by their names, once per turn."""

    seconds: dict[str, list[float]] = field(default_factory=dict)

    def time(self, name: str, step: Callable[[], Any]) -> Any:
        """Run a step; what it returns."""
        start = time.perf_counter()
        result = step()
        self.seconds.setdefault(name, []).append(time.perf_counter() - start)
        return result

    def medians(self) -> dict[str, float]:
        """The median of every step."""
        return {name: median(spent) for name, spent in self.seconds.items()}


@dataclass
class Turner:
    """Turns on one ledger, one after the other."""

    store: ObjectStore
    ledger: Ledger
    decoders: DecoderPool
    turns: int = 0

    def turn(self, watch: Stopwatch) -> None:
        """One turn of :data:`NEW` new frames."""
        store, ledger, number = self.store, self.ledger, self.turns
        upload(store, number * NEW, NEW)
        assert watch.time("questions", self.ask)
        keys = watch.time("admit", lambda: admit_uploads(store, ledger, PARAMS)).keys
        done = watch.time(
            "receive", lambda: receive(store, ledger, keys, TAXONOMY, PARAMS, decoders=self.decoders)
        )
        assert done.received == NEW, done
        done = watch.time("deduplicate", lambda: deduplicate(store, ledger, PARAMS))
        assert done.accepted == NEW, done
        room = watch.time("room", lambda: room_for_tasks(ledger, SELECTION.budget))
        sampled = watch.time(
            "select", lambda: select_frames(store, ledger, MODELS, {}, SELECTION, number, room)
        )
        assert len(sampled) == room == SELECTION.budget - (TASKED if number == 0 else 0), (len(sampled), room)
        watch.time("task", lambda: ledger.mark_tasked(dict.fromkeys(sampled, number)))
        answered = [sha256 for sha256, _ in watch.time("queue", ledger.tasked_frames)]
        watch.time("collect", lambda: self.collect(answered))
        watch.time("grow", self.grow)
        self.turns += 1

    def ask(self) -> bool:
        """What the sweep asks every quarter of an hour."""
        ledger = self.ledger
        return bool(
            ingest_due(self.store, ledger, PARAMS)
            and request_due(ledger)
            and (collection_due(ledger) or True)
            and (grow_due(ledger, GROWTH) or True)
            and (retrain_due(ledger, RETRAINING) or True)
        )

    def collect(self, sha256s: list[str]) -> None:
        """People have answered all tasks."""
        for index, sha256 in enumerate(sha256s):
            row = AnnotationRow(
                installation="new",
                annotation_id=self.turns * 1000 + index,
                task_id=self.turns,
                sha256=sha256,
                annotator="somebody",
                labelled_at=datetime.now(UTC),
                outcome="boxes",
                boxes=(Box("Drink can", 10, 10, 80, 60, 1.0),),
            )
            self.ledger.record_annotations(sha256, [row], finished=True)

    def grow(self) -> None:
        """The labels become a turn of the dataset, and a candidate is trained on it."""
        ledger, name = self.ledger, f"bench-{self.turns}"
        labels = ledger.labels_to_grow()
        keys = [key for label in labels for key in label.keys]
        plan = TurnRow(
            digest=name, state="planned", started_at=datetime.now(UTC), frames=len(labels), boxes=len(labels)
        )
        ledger.plan_turn(plan, keys)
        assert len(ledger.labels_to_grow(name)) == len(labels)
        ledger.finish_turn(name, turn=name, version=name)
        assert ledger.count_untrained_frames() >= len(labels)
        ledger.mark_trained([name])


@dataclass
class Candidate:
    """One ledger that is measured, and the seconds that its turns' steps and the questions of people took."""

    turner: Turner
    url: str
    watch: Stopwatch = field(default_factory=Stopwatch)
    looks: Stopwatch = field(default_factory=Stopwatch)

    def look(self) -> None:
        """What people and Prometheus ask."""
        settings = bench_settings(self.url, self.turner.store)
        self.looks.time("/metrics", Metrics(settings)._read_ledger)
        self.looks.time("status", lambda: (_query_ledger(settings), _query_quotas(settings)))


@contextmanager
def candidate(database: Database, size: int, folder: Path, decoders: DecoderPool) -> Iterator[Candidate]:
    """A filled ledger, with a store of its own."""
    with bench_store(folder / "s3") as store, bench_database(database, folder / "database") as url:
        ledger, start = open_ledger(url), time.perf_counter()
        fill(ledger, size)
        if database == "postgresql":  # what its autovacuum does after a while
            engine = create_engine(url, isolation_level="AUTOCOMMIT")
            with engine.connect() as connection:
                connection.exec_driver_sql("VACUUM ANALYZE")
            engine.dispose()
        print(f"  ({size:,} frames entered in {time.perf_counter() - start:.0f} s)", flush=True)
        turner = Turner(store, ledger, decoders)
        turner.turn(Stopwatch())  # answers what waited
        yield Candidate(turner, url)
        ledger.close()


def bench_settings(url: str, store: ObjectStore) -> Settings:
    """Settings of a deployment that has a ledger and nothing else."""
    return Settings(
        _env_file=None,
        s3_endpoint=store.endpoint,
        s3_access_key="none",
        s3_secret_key="none",
        s3_bucket=store.bucket,
        ledger_url=url,
        label_studio_url="http://127.0.0.1:9",
        label_studio_token="none",
        gateway_url="http://127.0.0.1:9",
        gateway_secret="a-secret-of-the-benchmark",
    )


def compare(database: Database, sizes: list[int], turns: int) -> None:
    """Print the seconds of every step, by the size of the ledger.

    The ledgers take turns, so that what else the machine does slows all of them down.
    """
    print(f"{database}: a turn of {NEW} new frames, by frames in the ledger; medians of {turns} turns")
    folder = Path(tempfile.mkdtemp(prefix="bench-turn-"))
    try:
        with ExitStack() as stack:
            decoders = stack.enter_context(DecoderPool(PARAMS))
            found = [
                stack.enter_context(candidate(database, size, folder / str(size), decoders)) for size in sizes
            ]
            for _ in range(turns):
                for one in found:
                    one.turner.turn(one.watch)
                    one.look()
    finally:
        shutil.rmtree(folder)
    print("  " + f"{'':14}" + "".join(f"{size:>12,}" for size in sizes) + "  times")
    watches = [one.watch.medians() for one in found]
    report("turn", [sum(watch.values()) for watch in watches])
    for name in watches[0]:
        report(f"  {name}", [watch[name] for watch in watches])
    for name in found[0].looks.seconds:
        report(name, [one.looks.medians()[name] for one in found])


def report(name: str, spent: Sequence[float]) -> None:
    """Print one line of the comparison."""
    cells = "".join(f"{seconds:>11.3f}s" for seconds in spent)
    print(f"  {name:14}{cells}  {spent[-1] / spent[0]:5.2f}", flush=True)


@click.command(help=__doc__)
@click.argument("sizes", nargs=-1, type=int)
@click.option("--database", type=click.Choice(DATABASES), help="Only this one.")
@click.option("--turns", default=5, show_default=True, help="Measured at each size.")
def main(sizes: tuple[int, ...], database: Database | None, turns: int) -> None:
    """Compare the sizes on each database."""
    for name in [database] if database else list(DATABASES):
        try:
            compare(name, sorted(sizes) or [1_000, 1_000_000], turns)
        except UserError as error:
            if name != "postgresql" or database:
                raise
            print(f"postgresql: not measured: {error}")


if __name__ == "__main__":
    main()
