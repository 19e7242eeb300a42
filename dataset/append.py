"""Append turns to the dataset log; a turn is appended as a whole or not at all.

The labels file is renamed into place last. A frames file without its labels file was left by an append that
died: it is not part of the log, and the next append removes it.
"""

import fcntl
import hashlib
import json
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from dataset.frame import SPLITS, Frame, Labels
from dataset.log import Log
from dataset.turn_files import COMPACTED, FRAMES_SCHEMA, LABELS_SCHEMA, TAXONOMY_KEY, WITHDRAWN, turns_of
from trashnet.errors import UserError
from trashnet.files import atomic_write
from trashnet.progress import track
from trashnet.taxonomy import Taxonomy

FRAMES_PER_BATCH = 64  # bounds what an append holds in memory: 64 frames of about 100 kB
MAX_TURNS = 99_999  # one more digit would sort before its predecessors


def append_turn(
    root: Path,
    name: str,
    frames: Iterable[Frame],
    labels: Iterable[tuple[str, Labels | None]],
    taxonomy: Taxonomy,
) -> str | None:
    """Append one turn, as a whole or not at all: new frames, and new labels of new or old frames.

    Frames that the log holds already are skipped, and so are labels that equal the recorded ones. Therefore
    appending the same turn twice changes nothing. A withdrawn frame does not come back, nor do its labels.

    Args:
        root: Folder of the log; it is created if it does not exist.
        name: What the turn is called: small letters, digits, ``_`` and ``.``.
        frames: The new frames. Their ``labels`` are not read.
        labels: Pairs of a frame's SHA-256 and its new labels; ``None`` takes a frame's labels back.
        taxonomy: The classes that the labels' ids refer to.

    Returns:
        The new turn's name, or ``None`` if there was nothing new.

    Raises:
        UserError: For labels of a frame that is neither in the log nor in the turn, class ids that the
            taxonomy lacks, boxes without area, and a group that would lie in two splits.
    """
    with open_to_append(root, taxonomy) as log:
        return append_to(log, name, frames, labels)


@contextmanager
def open_to_append(root: Path, taxonomy: Taxonomy) -> Iterator[Log]:
    """Open or create the log and lock it: other processes wait with their appends until the block ends.

    The lock file lies beside the log, not in it, so that DVC does not version it.
    """
    (root / "frames").mkdir(parents=True, exist_ok=True)
    (root / "labels").mkdir(parents=True, exist_ok=True)
    with (root.parent / f".{root.name}.lock").open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        _sweep_unfinished(root)
        yield Log(root, taxonomy)


def append_to(
    log: Log, name: str, frames: Iterable[Frame], labels: Iterable[tuple[str, Labels | None]]
) -> str | None:
    """Append one turn, as :func:`append_turn` does, to a log opened with :func:`open_to_append`."""
    if not re.fullmatch(r"[a-z0-9][a-z0-9_.]*", name):
        raise UserError(f"turn name {name!r}: use small letters, digits, '_' and '.'")
    if name in (WITHDRAWN, COMPACTED):
        raise UserError(f"turn name {name!r}: the log calls turns of another kind so; choose another one")
    root, digest = log.root, hashlib.sha256()
    staged = root / "frames" / ".staged"
    try:
        with atomic_write(staged) as temporary:
            added = _write_frames(temporary, _new_frames(log, frames), digest)
        changed = list(_changed_labels(log, added, labels))
        if not added and not changed:
            return None
        for sha, frame_labels in changed:
            digest.update(json.dumps([sha, _box_rows(frame_labels)], sort_keys=True).encode())
        turn = next_turn(log, name, digest.hexdigest())
        complete_turn(log, turn, staged, changed)
    finally:
        staged.unlink(missing_ok=True)
    return turn


def next_turn(log: Log, name: str, digest: str) -> str:
    """The full name of the turn that is appended next. Raises :class:`UserError` for a log that is full."""
    sequence = int(log.turns[-1].split("-")[0]) + 1 if log.turns else 1
    if sequence > MAX_TURNS:
        raise UserError(
            f"{log.root}: a log holds at most {MAX_TURNS} turns. "
            "Export it and import the export into a new log."
        )
    return f"{sequence:05d}-{name}-{digest[:12]}"


def complete_turn(log: Log, turn: str, staged: Path, labels: Sequence[tuple[str, Labels | None]]) -> None:
    """Make a staged file of frames a turn of the log, with these labels: the file of labels comes last."""
    staged.replace(log.root / "frames" / f"{turn}.arrow")
    # The labels file says that the frames file is complete, so it must not reach the disk first.
    sync_folder(log.root / "frames")
    with atomic_write(log.root / "labels" / f"{turn}.parquet") as temporary:
        pq.write_table(_labels_table(labels, log.taxonomy), temporary, compression="zstd")
    sync_folder(log.root / "labels")


def _new_frames(log: Log, frames: Iterable[Frame]) -> Iterator[Frame]:
    """Yield the frames that are not in the log yet; a group that would lie in two splits is an error."""
    split_of = dict(zip(log.column("group"), log.splits.tolist(), strict=True))
    seen: set[str] = set()
    for frame in frames:
        if frame.sha256 in log.row_of or frame.sha256 in seen or frame.sha256 in log.withdrawn:
            continue
        if frame.split not in SPLITS:
            raise UserError(f"frame {frame.sha256}: split {frame.split!r} is none of {', '.join(SPLITS)}")
        if (recorded := split_of.setdefault(frame.group, frame.split)) != frame.split:
            raise UserError(
                f"frame {frame.sha256}: group {frame.group!r} is in split {recorded!r}, not {frame.split!r}; "
                "all frames of a group are in one split"
            )
        seen.add(frame.sha256)
        yield frame


def _write_frames(path: Path, frames: Iterator[Frame], digest: "hashlib._Hash") -> set[str]:
    written: set[str] = set()
    batch: list[dict[str, Any]] = []
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, FRAMES_SCHEMA) as writer:

        def flush() -> None:
            if batch:
                writer.write_batch(pa.RecordBatch.from_pylist(batch, schema=FRAMES_SCHEMA))
                batch.clear()

        for frame in track(frames, None, "append frames", "frame"):
            written.add(frame.sha256)
            digest.update(frame.sha256.encode())
            row = {name: getattr(frame, name) for name in FRAMES_SCHEMA.names}
            batch.append(row | {"jpeg": bytes(frame.jpeg), "extra": json.dumps(frame.extra, sort_keys=True)})
            if len(batch) == FRAMES_PER_BATCH:
                flush()
        flush()
    return written


def _changed_labels(
    log: Log, added: set[str], labels: Iterable[tuple[str, Labels | None]]
) -> Iterator[tuple[str, Labels | None]]:
    for sha, new in dict(labels).items():
        if sha in log.withdrawn:
            continue
        row = log.row_of.get(sha)
        if new is None:
            if row is not None and log.labels(row) is not None:
                yield sha, None
            continue
        if row is None and sha not in added:
            raise UserError(
                f"labels for frame {sha}, which is neither in {log.root} nor in this turn: append it first"
            )
        if unknown := sorted(set(new.class_ids.tolist()) - set(log.taxonomy.name_of)):
            raise UserError(f"labels for frame {sha}: the taxonomy has no class with id {unknown}")
        if not (np.isfinite(new.boxes).all() and (new.boxes[:, 2:] > 0).all()):
            raise UserError(f"labels for frame {sha}: a box has no area or is not a number:\n{new.boxes}")
        recorded = log.labels(row) if row is not None else None
        if recorded is None or not recorded.same_boxes(new):
            yield sha, new


def _box_rows(labels: Labels | None) -> list[dict[str, Any]] | None:
    if labels is None:
        return None
    return [
        {
            "class_id": int(c),
            "x": float(x),
            "y": float(y),
            "w": float(w),
            "h": float(h),
            "crowd": bool(k),
            "extra": json.dumps(e, sort_keys=True),
        }
        for (x, y, w, h), c, k, e in zip(
            labels.boxes, labels.class_ids, labels.crowd, labels.extra, strict=True
        )
    ]


def _labels_table(labels: Sequence[tuple[str, Labels | None]], taxonomy: Taxonomy) -> pa.Table:
    rows = [
        {
            "sha256": sha,
            "labelled_at": None if frame_labels is None else frame_labels.labelled_at,
            "annotator": None if frame_labels is None else frame_labels.annotator,
            "prelabelled": None if frame_labels is None else frame_labels.prelabelled,
            "boxes": _box_rows(frame_labels),
        }
        for sha, frame_labels in labels
    ]
    table = pa.Table.from_pylist(rows, schema=LABELS_SCHEMA)
    return table.replace_schema_metadata({TAXONOMY_KEY: json.dumps(taxonomy.name_of).encode()})


def _sweep_unfinished(root: Path) -> None:
    """Remove the files of appends that died; files that no append wrote stay."""
    complete = set(turns_of(root))
    unfinished = re.compile(r"\.staged|\..*\.part|\d{5}-.*\.arrow")
    for path in (root / "frames").iterdir():
        if unfinished.fullmatch(path.name) and path.stem not in complete:
            path.unlink()
    for path in (root / "labels").glob(".*.part"):
        path.unlink()
    for path in (root / "withdrawn").glob("*"):
        if path.stem not in complete:
            path.unlink()


def sync_folder(path: Path) -> None:
    """Wait until a folder's entries are on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
