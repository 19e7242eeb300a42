"""Withdrawal: frames leave the dataset by a turn that names them, and their bytes by a compaction.

The log is appended to: a turn ``<sequence>-withdrawn-<digest>`` holds no frames and no labels, but says of
each withdrawn frame which turn brought it, its split and group, when it was withdrawn and why. So older
versions stay explained. The bytes lie in the older turns' files until :func:`compact` rewrites those without
them; this is the one time that a file of the log changes, and it makes a version of its own.
"""

import hashlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from dataset.append import complete_turn, next_turn, open_to_append, sync_folder
from dataset.log import Log
from dataset.turn_files import (
    COMPACTED,
    FRAMES_SCHEMA,
    WITHDRAWN,
    WITHDRAWN_SCHEMA,
    map_frames,
    name_of_turn,
    read_withdrawn,
    version_of_turn,
    withdrawn_path,
)
from dataset.versions import DATA, commit_version
from trashnet.clone import Clone
from trashnet.files import atomic_write
from trashnet.progress import track
from trashnet.taxonomy import Taxonomy


@dataclass(frozen=True, slots=True)
class Tombstone:
    """A withdrawn frame, the turn that brought it, the turn that withdrew it, and its split."""

    sha256: str
    turn: str
    withdrawn_by: str
    split: str


@dataclass(frozen=True, slots=True)
class Compaction:
    """What a compaction did: its turn and version, how many frames it left out, and the older files' MD5s by
    their turns: under these, DVC keeps the bytes in its caches and remotes.
    """

    turn: str
    version: str
    frames: int
    old_files: dict[str, str]


def append_withdrawn(root: Path, sha256s: Collection[str], reason: str, taxonomy: Taxonomy) -> str | None:
    """Append a turn that withdraws those of these frames that the log holds; ``None`` if it holds none."""
    with open_to_append(root, taxonomy) as log:
        rows = sorted(log.row_of[sha256] for sha256 in set(sha256s) if sha256 in log.row_of)
        if not rows:
            return None
        columns = {name: log.column(name) for name in ("sha256", "split", "group")}
        turns, now = log.turns_of_rows(), datetime.now(UTC)
        tombstones = [
            {name: values[row] for name, values in columns.items()}
            | {"turn": turns[row], "reason": reason, "withdrawn_at": now}
            for row in rows
        ]
        digest = hashlib.sha256("".join(str(one["sha256"]) for one in tombstones).encode())
        turn = next_turn(log, WITHDRAWN, digest.hexdigest())
        with atomic_write(withdrawn_path(root, turn)) as temporary:
            pq.write_table(pa.Table.from_pylist(tombstones, schema=WITHDRAWN_SCHEMA), temporary)
        sync_folder(withdrawn_path(root, turn).parent)
        _complete_empty_turn(log, turn)
        return turn


def tombstones_of(root: Path, turns: Sequence[str], sha256s: Collection[str]) -> list[Tombstone]:
    """What these turns of a log say of these frames."""
    wanted = set(sha256s)
    return [
        Tombstone(row["sha256"], row["turn"], turn, row["split"])
        for turn in turns
        for row in read_withdrawn(root, [turn]).to_pylist()
        if row["sha256"] in wanted
    ]


def withdraw_from_dataset(
    clone: Clone, taxonomy: Taxonomy, sha256s: Collection[str], reason: str
) -> list[Tombstone]:
    """Make a dataset version without these frames, unless there is one; what it says of them.

    Frames that the dataset does not hold are left alone. Each step may be repeated. Raises
    :class:`trashnet.errors.UserError` if one fails; the next call goes on there.
    """
    with clone.exclusive_lock():
        clone.restore()
        root = clone.path / DATA
        append_withdrawn(root, sha256s, reason, taxonomy)
        found = tombstones_of(root, Log(root, taxonomy).turns, sha256s)
        for turn in sorted({tombstone.withdrawn_by for tombstone in found}):
            count = sum(tombstone.withdrawn_by == turn for tombstone in found)
            commit_version(clone, turn, f"{count} frames withdrawn: {reason}")
    return found


def compact(clone: Clone, taxonomy: Taxonomy) -> Compaction | None:
    """Rewrite the files that hold withdrawn frames, as a new version; ``None`` if none does.

    Older versions still name the older files: who wants the bytes gone removes those from DVC's caches and
    remotes. A process that died left the clone's files in between: the next call begins anew.
    """
    with clone.exclusive_lock():
        clone.restore()
        root = clone.path / DATA
        with open_to_append(root, taxonomy) as log:
            affected = {turn: count for turn in log.turns if (count := _count_withdrawn(log, turn))}
            if not affected:
                if log.turns and name_of_turn(log.turns[-1]) == COMPACTED:  # it died before it was pushed
                    commit_version(clone, log.turns[-1], "Files rewritten without withdrawn frames")
                return None
            old_files = {turn: _md5(root / "frames" / f"{turn}.arrow") for turn in affected}
            for turn in track(affected, len(affected), "rewrite turns", "file"):
                _rewrite_frames(log, turn)
            digest = hashlib.sha256("".join(old_files.values()).encode()).hexdigest()
            turn = next_turn(log, COMPACTED, digest)
            _complete_empty_turn(log, turn)
        frames = sum(affected.values())
        replaced = "\n".join(f"replaced {md5} frames/{old}.arrow" for old, md5 in old_files.items())
        commit_version(clone, turn, f"Files rewritten without {frames} withdrawn frames\n\n{replaced}")
    return Compaction(turn, version_of_turn(turn), frames, old_files)


def needs_compaction(turns: Sequence[str]) -> bool:
    """Whether frames were withdrawn since the last compaction, by the names of a log's turns."""
    names = [name_of_turn(turn) for turn in turns]
    return WITHDRAWN in names[len(names) - names[::-1].index(COMPACTED) if COMPACTED in names else 0 :]


def _complete_empty_turn(log: Log, turn: str) -> None:
    staged = log.root / "frames" / ".staged"
    with atomic_write(staged) as temporary, pa.OSFile(str(temporary), "wb") as sink:
        pa.ipc.new_file(sink, FRAMES_SCHEMA).close()
    complete_turn(log, turn, staged, [])


def _count_withdrawn(log: Log, turn: str) -> int:
    names = [name for batch in map_frames(log.root, turn) for name in batch.column("sha256").to_pylist()]
    return sum(name in log.withdrawn for name in names)


def _rewrite_frames(log: Log, turn: str) -> None:
    withdrawn = pa.array(sorted(log.withdrawn), pa.string())
    batches = map_frames(log.root, turn)
    path = log.root / "frames" / f"{turn}.arrow"
    with (
        atomic_write(path) as temporary,
        pa.OSFile(str(temporary), "wb") as sink,
        pa.ipc.new_file(sink, FRAMES_SCHEMA) as writer,
    ):
        for batch in batches:
            kept = batch.filter(pc.invert(pc.is_in(batch.column("sha256"), value_set=withdrawn)))
            if kept.num_rows:
                writer.write_batch(kept)


def _md5(path: Path) -> str:
    """What DVC names a file's bytes by."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
