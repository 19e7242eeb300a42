"""Growing on a full disk: one clear line each time, nothing half-done is published."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY
from tests.full_disk import on_a_small_disk

DISK = 6_000_000  # bytes; the clone, its cache and the remote take a good part of it
LEFT = (0, 9_000, 20_000, 30_000, 60_000)  # bytes that are free when growing is tried


def grow_with_little_room(begun: Path, elsewhere: Path, disk: Path) -> None:
    """Run as a process: fill the disk but for some bytes, grow, repeat; then make room and grow."""
    from benchmarks.support.memory_store import MemoryStore
    from tests.dataset.test_growth import Deployment
    from trashnet.clone import Clone
    from trashnet.errors import UserError
    from trashnet.ledger import open_ledger
    from trashnet.taxonomy import load_taxonomy

    shutil.copytree(begun, disk, dirs_exist_ok=True)
    ledger = open_ledger(f"sqlite:///{elsewhere}/ledger.sqlite")
    deployment = Deployment(
        Clone(disk / "clone"),
        MemoryStore(),
        ledger,
        disk / "origin",
        load_taxonomy(REPOSITORY / "taxonomy.yaml"),
    )
    deployment.label(range(3))
    ballast, said = disk / "ballast", []
    for left in LEFT:
        ballast.unlink(missing_ok=True)
        with ballast.open("wb") as stream:
            stream.write(bytes(max(shutil.disk_usage(disk).free - left, 0)))
        try:
            grown = deployment.grow()
            said.append(f"grown {grown.version}" if grown else "nothing")
        except (UserError, OSError) as error:
            said.append(str(error))
    ballast.unlink()
    grown = deployment.grow()
    contents = deployment.contents()
    print(
        json.dumps(
            [
                said,
                grown is not None,
                len(contents["frames"]),
                contents["tags"],
                contents["waiting"],
                contents["ledger"],
            ]
        )
    )


@pytest.mark.slow
def test_growing_on_a_full_disk_publishes_nothing_half_done(begun: Path, tmp_path: Path) -> None:
    """The turn is refused with the reason, or whole; in the end one turn has all frames."""
    (tmp_path / "disk").mkdir()
    code = (
        "import sys; from pathlib import Path; from tests.dataset.test_full_disk import *; "
        "grow_with_little_room(*map(Path, sys.argv[1:]))"
    )
    program = on_a_small_disk(tmp_path / "grow", [sys.executable, "-c", code], size=str(DISK))
    done = subprocess.run(
        [program, begun, tmp_path, tmp_path / "disk"], cwd=REPOSITORY, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]
    said, grown_at_last, frames, tags, waiting, turns = json.loads(done.stdout.splitlines()[-1])
    refused = [line for line in said if not line.startswith(("grown", "nothing"))]
    assert len(refused) >= 2
    assert all(re.search("No space left on device|Out of diskspace", line) for line in refused), refused
    assert grown_at_last or "grown data-00001" in said
    assert (frames, tags, waiting, len(turns)) == (3, ["data-00001"], 0, 1)
