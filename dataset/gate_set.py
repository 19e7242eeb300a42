"""The gate set: the frames that challenger and champion are compared on, as named versions that only grow.

A version is one file of the log, ``gate/<version>.parquet``, with all its frames. It is written when a turn
has brought enough new ones (:func:`step_gate_set`) and never again, so two comparisons with the same name are
of the same frames. In it are test frames that were drawn at random twice (``trashnet.choice``), and imported
ones if the parameters say so. A frame that left the dataset since is named with the reason.
"""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from dataset.append import sync_folder
from dataset.log import Frames, Log
from dataset.params import GrowthParams
from dataset.turn_files import read_withdrawn
from trashnet.choice import EXPLORATION, HELD_OUT, IMPORT, ChoiceOrigin
from trashnet.errors import UserError
from trashnet.files import atomic_write

VERSION = re.compile(r"gate-\d{5}")
GATE_SCHEMA = pa.schema(
    [
        pa.field("sha256", pa.string(), nullable=False),
        pa.field("origin", pa.string(), nullable=False),  # a `ChoiceOrigin`
    ]
)


@dataclass(frozen=True, slots=True)
class GateSet:
    """One version: its labelled frames by SHA-256, and the origin of each, in their order.

    ``left``: frames of the version that are not among ``frames`` any more, by SHA-256 with the reason.
    """

    version: str
    frames: Frames
    origins: tuple[ChoiceOrigin, ...]
    left: Mapping[str, str]

    @property
    def digest(self) -> str:
        """12 hexadecimal digits of the frames that are judged: equal if and only if these are the same."""
        names = sorted(self.frames[index].sha256 for index in range(len(self.frames)))
        return hashlib.sha256("".join(names).encode()).hexdigest()[:12]


def gate_versions(root: Path) -> list[str]:
    """The names of the versions in the log at ``root``, oldest first."""
    return sorted(path.stem for path in (root / "gate").glob("*.parquet") if VERSION.fullmatch(path.stem))


def read_gate_set(log: Log, version: str | None = None) -> GateSet:
    """A version of the gate set, by default the newest.

    Raises :class:`UserError` if there is none of that name, or if its file is damaged.
    """
    versions = gate_versions(log.root)
    if not versions:
        raise UserError(
            f"{log.root}: there is no gate set yet. The first turn with a labelled test frame that was drawn "
            "at random makes one: let bins upload a share of frames with the reason `exploration`."
        )
    version = version or versions[-1]
    if version not in versions:
        raise UserError(f"{log.root}: gate set {version!r} is none of {', '.join(versions)}")
    recorded = _read(log.root, version)
    withdrawn = read_withdrawn(log.root, log.turns)
    reasons = dict(zip(withdrawn["sha256"].to_pylist(), withdrawn["reason"].to_pylist(), strict=True))
    rows: list[int] = []
    left: dict[str, str] = {}
    for sha256 in recorded:
        row = log.row_of.get(sha256)
        if row is None:
            reason = f"withdrawn: {reasons[sha256]}" if sha256 in reasons else "it is not in this log"
            left[sha256] = reason
        elif log.labels(row) is None:
            left[sha256] = "its label was taken back"
        else:
            rows.append(row)
    origins = tuple(origin for sha256, origin in recorded.items() if sha256 not in left)
    return GateSet(version, Frames([(log, np.array(rows, np.int64))]), origins, left)


def step_gate_set(log: Log, params: GrowthParams) -> str | None:
    """Make the next version, named after the log's last turn, if it is due; call within ``open_to_append``.

    The first is due with the first frame, every other with ``params.gate_frames`` frames that the one before
    does not have. Returns its name, ``None`` if none was due.
    """
    versions, now = gate_versions(log.root), _eligible(log, params)
    before = _read(log.root, versions[-1]) if versions else {}
    if len(now.keys() - before.keys()) < (params.gate_frames if versions else 1):
        return None
    version = f"gate-{log.turns[-1].split('-')[0]}"
    if version in versions:
        return None  # a version is never rewritten: the next turn makes another one
    rows = [{"sha256": sha256, "origin": origin} for sha256, origin in sorted(now.items())]
    (log.root / "gate").mkdir(exist_ok=True)
    with atomic_write(log.root / "gate" / f"{version}.parquet") as temporary:
        pq.write_table(pa.Table.from_pylist(rows, schema=GATE_SCHEMA), temporary, compression="zstd")
    sync_folder(log.root / "gate")
    return version


def _eligible(log: Log, params: GrowthParams) -> dict[str, ChoiceOrigin]:
    """The labelled test frames that count, by SHA-256 with their origins.

    A frame of a bin that was to be held out, but that training has seen, is an ordinary exploration frame.
    """
    splits, bins, names = log.splits.tolist(), log.column("bin_id"), log.column("sha256")
    seen = {bin_id for bin_id, split in zip(bins, splits, strict=True) if split != "test"}
    found: dict[str, ChoiceOrigin] = {}
    for row, choice in enumerate(log.choices):
        origin = choice.origin
        if origin == HELD_OUT and bins[row] in seen:
            origin = EXPLORATION
        counts = origin in (EXPLORATION, HELD_OUT) or (origin == IMPORT and params.gate_imports)
        if counts and splits[row] == "test" and log.labels(row) is not None:
            found[names[row]] = origin
    return found


def _read(root: Path, version: str) -> dict[str, ChoiceOrigin]:
    path = root / "gate" / f"{version}.parquet"
    try:
        table = pq.ParquetFile(path).read(use_threads=False).cast(GATE_SCHEMA)
    except (OSError, ValueError, pa.ArrowInvalid) as error:
        raise UserError(f"{path}: missing or damaged ({error}). `dvc checkout` restores it.") from None
    return dict(zip(table["sha256"].to_pylist(), table["origin"].to_pylist(), strict=True))
