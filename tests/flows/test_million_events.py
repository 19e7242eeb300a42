"""A day of a fleet, small: whatever events are lost, doubled, late and out of order, and whatever dies, the
ledger and the store end as they do without. ``benchmarks/million_events.py`` is the same with a million.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.simulation.comparison import differences, expected_rows, final_state
from benchmarks.simulation.fleet import Fleet
from benchmarks.simulation.world import UNDISTURBED, Faults, World
from ingest import DecoderPool, IngestParams
from tests.conftest import REPOSITORY
from trashnet.params import load_params
from trashnet.taxonomy import Taxonomy

pytestmark = pytest.mark.heavy

FLEET = Fleet(seed=20, bins=20, uploads=2000, rate=5.0)
PARAMS = load_params("ingest", IngestParams, REPOSITORY / "params.yaml")


@pytest.fixture(scope="module")
def decoders() -> Iterator[DecoderPool]:
    """Decoding processes for all worlds."""
    with DecoderPool(PARAMS) as running:
        yield running


def live(faults: Faults, folder: Path, taxonomy: Taxonomy, decoders: DecoderPool) -> World:
    """A world that has ended."""
    url = f"sqlite:///{folder}/ledger.sqlite"
    world = World(FLEET, faults, url, taxonomy, PARAMS, decoders, step_seconds=3.0)
    world.live()
    return world


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, taxonomy: Taxonomy, decoders: DecoderPool) -> World:
    """How the day ends if every event arrives once, in time, and nothing dies."""
    return live(UNDISTURBED, tmp_path_factory.mktemp("undisturbed"), taxonomy, decoders)


def test_lost_doubled_and_late_events_and_deaths_change_nothing(
    tmp_path: Path, undisturbed: World, taxonomy: Taxonomy, decoders: DecoderPool
) -> None:
    """Rows and objects are those of the undisturbed day, and both are what the uploads alone lead to."""
    world = live(Faults(late_seconds=30.0, effects=500), tmp_path, taxonomy, decoders)
    counts = world.counts
    assert min(counts["deaths"], counts["rounds"]) >= 5
    assert min(counts["events lost"], counts["events doubled"]) > 50
    assert not undisturbed.counts["deaths"]
    assert final_state(world.ledger, world.objects) == final_state(undisturbed.ledger, undisturbed.objects)
    assert differences(FLEET, world.ledger, world.objects) == []


def test_the_comparison_notices_what_is_missing(undisturbed: World) -> None:
    """An object that is gone, and a row that is: else the comparison with the uploads would prove nothing."""
    states = {expected.state for _, expected in expected_rows(FLEET)}
    assert states == {"accepted", "duplicate", "quarantined"}
    row = next(
        undisturbed.ledger.frame(key.removeprefix("frames/").removesuffix(".jpg"))
        for key in undisturbed.objects.keys_under("frames/")
    )
    assert row is not None
    assert row.key is not None
    content = undisturbed.objects[row.key]
    undisturbed.objects.discard(row.key)
    found = differences(FLEET, undisturbed.ledger, undisturbed.objects)
    assert any(f"{row.key} is not in the store" in line for line in found)
    undisturbed.objects[row.key] = content
    undisturbed.ledger.move(row.sha256, "accepted", "labelled")
    found = differences(FLEET, undisturbed.ledger, undisturbed.objects)
    assert any(row.uploaded_sha256 in line and "labelled" in line for line in found)
