"""Prefect's concurrency leases, which its filesystem lease storage keeps as one JSON file each.

A run holds its deployment's slot by a lease that it renews. While Prefect is down nobody can renew a lease,
so leases get a new term before Prefect starts: else it would take the slot of a run that goes on, and that
run, a week's retraining perhaps, would be stopped when it renews.

Uses the standard library only: ``deploy/compose.yaml`` runs this file in Prefect's own image, as
``python leases.py FOLDER``.
"""

import json
import os
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

STORAGE = "prefect.server.concurrency.lease_storage.filesystem"
FOLDER = "concurrency_leases"  # in PREFECT_HOME
TERM = timedelta(seconds=300)  # of a flow run's lease, in Prefect's flow engine


def extend_leases(prefect_home: Path) -> int:
    """Give every lease a whole term from now. How many there were; call it while Prefect is down."""
    until, extended = datetime.now(UTC) + TERM, 0
    for path in _lease_files(prefect_home):
        try:
            lease = json.loads(path.read_text(encoding="utf-8"))
            expiration = datetime.fromisoformat(lease["expiration"])
        except (ValueError, KeyError, TypeError):
            continue  # Prefect removes a file that it cannot read
        if expiration < until:
            part = path.with_suffix(".part")
            part.write_text(json.dumps(lease | {"expiration": until.isoformat()}), encoding="utf-8")
            os.replace(part, path)
            extended += 1
    return extended


def drop_leases(prefect_home: Path) -> None:
    """Remove every lease. Call it only while nobody runs anything."""
    for path in _lease_files(prefect_home):
        path.unlink(missing_ok=True)


def _lease_files(prefect_home: Path) -> list[Path]:
    return [path for path in (prefect_home / FOLDER).glob("*.json") if path.stem != "expirations"]


if __name__ == "__main__":
    print(f"{extend_leases(Path(sys.argv[1]))} concurrency leases extended", flush=True)
