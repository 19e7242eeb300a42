"""A day of a fleet in simulated time: events lost, doubled, late and out of order, and ingest runs that die.

In the end the ledger and the store must be what the uploads alone lead to. The ledger is a real SQLite file,
the pictures are decoded by real processes; the object store is in memory, and nobody listens to Prefect.
"""

import shutil
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path

import click
from sqlalchemy.engine import make_url

from benchmarks.simulation.comparison import differences
from benchmarks.simulation.fleet import Fleet
from benchmarks.simulation.world import UNDISTURBED, Faults, World
from ingest import DecoderPool, IngestParams
from trashnet.errors import UserError
from trashnet.params import load_params
from trashnet.taxonomy import load_taxonomy

ROOT = Path(__file__).parent.parent
DAY = 86_400
PARTS = 10  # of the day, after each of which a line is printed
STEPS = ("list", "receive", "deduplicate", "sweep", "due")


class Growth:
    """Prints after each part of the uploads what that part cost, and what there is by then."""

    def __init__(self, uploads: int) -> None:
        self._every, self._uploads, self._spent = max(1, uploads // PARTS), 0, defaultdict[str, float](float)
        self._started = self._last = time.perf_counter()
        self.world: World | None = None
        columns = ("uploads", "seconds", "uploads/s", *STEPS, "memory", "objects", "ledger")
        print("".join(f"{name:>12}" for name in columns))

    def note(self, number: int) -> None:
        """An upload was made."""
        if (number + 1) % self._every or self.world is None:
            return
        now, done, world = time.perf_counter(), number + 1 - self._uploads, self.world
        steps = [f"{(world.spent[name] - self._spent[name]) / done * 1e6:.0f} us" for name in STEPS]
        objects = sum(
            sys.getsizeof(content[0]) + sys.getsizeof(key) for key, content in world.objects.items()
        )
        cells = [
            f"{number + 1:,}",
            f"{now - self._started:.0f}",
            f"{done / (now - self._last):.0f}",
            *steps,
            f"{resident_bytes() / 1e6:.0f} MB",
            f"{objects / 1e6:.0f} MB",
            f"{ledger_bytes(world.url) / 1e6:.0f} MB",
        ]
        print("".join(f"{cell:>12}" for cell in cells), flush=True)
        self._last, self._uploads, self._spent = (
            time.perf_counter(),
            number + 1,
            defaultdict(float, world.spent),
        )


def resident_bytes(field: str = "VmRSS") -> int:
    """The memory of this process now, or at most (``VmHWM``)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))


def ledger_bytes(url: str) -> int:
    """The size of an SQLite ledger's files."""
    path = Path(make_url(url).database or "")
    return sum(file.stat().st_size for file in path.parent.glob(f"{path.name}*"))


def live(fleet: Fleet, faults: Faults, folder: Path) -> list[str]:
    """One world from its beginning to its end; in which ways that is not the right one."""
    params = load_params("ingest", IngestParams, ROOT / "params.yaml")
    growth, start = Growth(fleet.uploads), time.perf_counter()
    with DecoderPool(params) as decoders:
        taxonomy = load_taxonomy(ROOT / "taxonomy.yaml")
        url = f"sqlite:///{folder}/ledger.sqlite"
        world = World(fleet, faults, url, taxonomy, params, decoders, on_upload=growth.note)
        growth.world = world
        world.live()
    seconds = time.perf_counter() - start
    print(", ".join(f"{count:,} {what}" for what, count in sorted(world.counts.items())))
    peak = resident_bytes("VmHWM") / 1e6
    print(f"{seconds:.0f} s, {fleet.uploads / seconds:.0f} uploads/s, {peak:.0f} MB of memory at most")
    return differences(fleet, world.ledger, world.objects)


@click.command(help=__doc__)
@click.option("--events", default=20_000, show_default=True, help="Uploads, each of which is an event.")
@click.option("--bins", default=1000, show_default=True)
@click.option("--seed", default=20, show_default=True)
@click.option("--undisturbed", is_flag=True, help="No event is lost, doubled or late, and nothing dies.")
def main(events: int, bins: int, seed: int, undisturbed: bool) -> None:
    """Simulate, and compare."""
    fleet = Fleet(seed, bins, events, rate=1_000_000 / DAY)
    folder = Path(tempfile.mkdtemp(prefix="bench-events-"))
    try:
        wrong = live(fleet, UNDISTURBED if undisturbed else Faults(), folder)
    finally:
        shutil.rmtree(folder)
    if wrong:
        raise UserError("\n".join(["ledger or store are not what the uploads lead to:", *wrong]))
    print(f"ledger and store are what the {events:,} uploads of {bins:,} bins lead to")


if __name__ == "__main__":
    main()
