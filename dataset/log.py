"""The dataset log: turns of frames and labels, appended and never rewritten; the dataset is the fold over them.

A turn is two files under the log's root: ``frames/<turn>.arrow`` (an Arrow IPC file, memory-mapped, JPEG bytes written once) and
``labels/<turn>.parquet`` (one row per labelled frame; of several rows for one frame the newest turn's wins, which is how a
correction is made). Turns are named ``<sequence>-<name>-<digest>`` and fold in the order of their names. The labels file is
renamed into place last: a frames file without its labels file is the trace of a crash, is not part of the log, and is swept away
by the next append.
"""

import fcntl
import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Self, overload

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from trashnet.errors import UserError
from trashnet.files import written_whole
from trashnet.taxonomy import Taxonomy

Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = ("train", "val", "test")

UTC_MICROSECONDS = pa.timestamp("us", tz="UTC")
FRAMES_SCHEMA = pa.schema(
    [
        pa.field("sha256", pa.string(), nullable=False),
        pa.field("jpeg", pa.large_binary(), nullable=False),
        pa.field("width", pa.int32(), nullable=False),
        pa.field("height", pa.int32(), nullable=False),
        pa.field("split", pa.string(), nullable=False),
        pa.field("group", pa.string(), nullable=False),  # frames of one group share a split, always
        pa.field("phash", pa.uint64(), nullable=False),  # perceptual hash, finds re-encodes of this frame later
        pa.field("file_name", pa.string(), nullable=False),  # where it came from
        pa.field("bin_id", pa.string()),
        pa.field("burst", pa.string()),
        pa.field("captured_at", UTC_MICROSECONDS),
        pa.field("extra", pa.string(), nullable=False),  # JSON: what the source said that has no column here
    ]
)
BOX_TYPE = pa.struct(
    [
        pa.field("class_id", pa.int32(), nullable=False),
        pa.field("x", pa.float64(), nullable=False),
        pa.field("y", pa.float64(), nullable=False),
        pa.field("w", pa.float64(), nullable=False),
        pa.field("h", pa.float64(), nullable=False),
        pa.field("crowd", pa.bool_(), nullable=False),
        pa.field("extra", pa.string(), nullable=False),
    ]
)
LABELS_SCHEMA = pa.schema(
    [
        pa.field("sha256", pa.string(), nullable=False),
        pa.field("labelled_at", UTC_MICROSECONDS),
        pa.field("annotator", pa.string()),
        pa.field("boxes", pa.list_(BOX_TYPE), nullable=False),  # an empty list is a background frame, not an unlabelled one
    ]
)
TAXONOMY_KEY = b"trashnet.taxonomy"  # schema metadata: the names that the ids had when the turn was written
FRAMES_PER_BATCH = 64  # bounds what an append holds in memory: 64 frames of about 100 kB


@dataclass(frozen=True, slots=True)
class Labels:
    """What a person boxed on one frame.

    ``boxes``: float64 ``(N, 4)``, COCO ``(x, y, w, h)`` in pixels; ``class_ids``: int64 ``(N,)``, ids of the taxonomy; ``crowd``: bool
    ``(N,)``, COCO's ``iscrowd``; ``extra``: per box, what the source said beyond that.
    """

    boxes: NDArray[np.float64]
    class_ids: NDArray[np.int64]
    crowd: NDArray[np.bool_]
    extra: tuple[dict[str, Any], ...] = ()
    labelled_at: datetime | None = None
    annotator: str | None = None

    def __post_init__(self) -> None:
        if not self.extra:
            object.__setattr__(self, "extra", tuple({} for _ in self.class_ids))
        if not (self.boxes.shape == (len(self.class_ids), 4) and len(self.crowd) == len(self.extra) == len(self.class_ids)):
            raise ValueError(f"boxes {self.boxes.shape}, {len(self.class_ids)} class ids, {len(self.crowd)} crowd flags: lengths differ")

    def __len__(self) -> int:
        return len(self.class_ids)

    def same_boxes(self, other: "Labels") -> bool:
        """Whether both say the same of the frame, whoever said it and when."""
        return (
            np.array_equal(self.boxes, other.boxes)
            and np.array_equal(self.class_ids, other.class_ids)
            and np.array_equal(self.crowd, other.crowd)
            and self.extra == other.extra
        )


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame of the dataset: its JPEG bytes (named by their SHA-256), where it belongs, and its newest labels, if any."""

    sha256: str
    jpeg: bytes | memoryview
    width: int
    height: int
    split: Split
    group: str
    phash: int
    file_name: str
    labels: Labels | None = None
    bin_id: str | None = None
    burst: str | None = None
    captured_at: datetime | None = None
    extra: dict[str, Any] = field(default_factory=dict)

    def image(self) -> NDArray[np.uint8]:
        """Decode to RGB, uint8 ``(height, width, 3)``, the pixels as stored (an EXIF orientation is not applied)."""
        flags = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION
        pixels = cv2.imdecode(np.frombuffer(self.jpeg, np.uint8), flags)
        if pixels is None:
            raise ValueError(f"frame {self.sha256}: its bytes no longer decode; `dvc checkout` restores the log")
        return pixels  # type: ignore[return-value]


class Frames(Sequence[Frame]):
    """A list of frames that reads each one when it is asked for; adds up with others and travels to worker processes."""

    def __init__(self, parts: Sequence[tuple["Log", NDArray[np.int64]]]) -> None:
        self._parts = [(log, rows) for log, rows in parts if len(rows)]
        self._ends = np.cumsum([len(rows) for _, rows in self._parts])

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    @overload
    def __getitem__(self, index: int) -> Frame: ...
    @overload
    def __getitem__(self, index: slice) -> "Frames": ...
    def __getitem__(self, index: int | slice) -> "Frame | Frames":
        if isinstance(index, slice):
            wanted = np.arange(len(self))[index]
            return self.take(wanted)
        log, row = self._locate(index)
        return log.frame(row)

    def labels(self, index: int) -> Labels | None:
        """The labels alone, without touching the frame's bytes."""
        log, row = self._locate(index)
        return log.labels(row)

    def take(self, indices: NDArray[np.int64]) -> "Frames":
        """The frames at these positions, in this order."""
        pieces = [self._locate(int(i)) for i in indices]
        return Frames(
            [(log, np.array([row])) for log, row in pieces]
            if len(self._parts) > 1
            else [(self._parts[0][0], np.array([row for _, row in pieces], np.int64))]
            if pieces
            else []
        )

    def __add__(self, other: "Frames") -> "Frames":
        return Frames(self._parts + other._parts)

    def _locate(self, index: int) -> tuple["Log", int]:
        size = len(self)
        if not -size <= index < size:
            raise IndexError(index)
        index %= size
        part = int(np.searchsorted(self._ends, index, side="right"))
        log, rows = self._parts[part]
        return log, int(rows[index - (self._ends[part - 1] if part else 0)])


class Log:
    """The fold over a log's turns, memory-mapped: opening reads names, sizes and labels, never the images.

    Pickling sends the path, not the data: a worker process maps the same files again.
    """

    def __init__(self, root: Path, taxonomy: Taxonomy) -> None:
        """Open the log at ``root``. Raises :class:`UserError` if there is none, or if its ids mean other names than the taxonomy's."""
        if not (root / "labels").is_dir():
            raise UserError(f"{root}: no dataset log here. `dvc pull` fetches it, `trashnet import` begins one.")
        self.root = root
        self.taxonomy = taxonomy
        self.turns = turns_of(root)
        self._table = pa.concat_tables([_map_frames(root, turn) for turn in self.turns]) if self.turns else FRAMES_SCHEMA.empty_table()
        labels = [_read_labels(root, turn, taxonomy) for turn in self.turns]
        self._labels = pa.concat_tables(labels) if labels else LABELS_SCHEMA.empty_table()

    def __reduce__(self) -> tuple[type[Self], tuple[Path, Taxonomy]]:
        return type(self), (self.root, self.taxonomy)

    def __len__(self) -> int:
        return int(self._table.num_rows)

    @cached_property
    def row_of(self) -> dict[str, int]:
        """Row by SHA-256."""
        return {sha: row for row, sha in enumerate(self._table["sha256"].to_pylist())}

    @cached_property
    def splits(self) -> NDArray[np.str_]:
        """Split of every row, ``(N,)``."""
        return np.asarray(self._table["split"].to_pylist(), dtype="U5")

    def column(self, name: str) -> list[Any]:
        """One column of the frames, all rows; any but ``jpeg``, which is read frame by frame."""
        if name == "jpeg":
            raise ValueError("the images are read frame by frame")
        return self._table[name].to_pylist()  # type: ignore[no-any-return]

    @cached_property
    def _label_row(self) -> NDArray[np.int64]:
        """For every frame the row of its newest labels, -1 where it has none."""
        newest = np.full(len(self), -1, np.int64)
        for label_row, sha in enumerate(self._labels["sha256"].to_pylist()):
            if (row := self.row_of.get(sha)) is not None:
                newest[row] = label_row  # later turns come later
        return newest

    @cached_property
    def _boxes(self) -> tuple[NDArray[np.int64], dict[str, NDArray[Any]], pa.ChunkedArray]:
        """Offsets ``(labelled + 1,)`` into the flat columns of all boxes, those columns, and the boxes' extras."""
        lengths = pa.compute.list_value_length(self._labels["boxes"]).to_numpy()
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        flat = pa.compute.list_flatten(self._labels["boxes"])
        columns = {
            name: pa.compute.struct_field(flat, name).to_numpy(zero_copy_only=False) if flat.length() else np.empty(0)
            for name in ("class_id", "x", "y", "w", "h", "crowd")
        }
        return offsets, columns, pa.compute.struct_field(flat, "extra")

    def labels(self, row: int) -> Labels | None:
        """The newest labels of a frame; ``None`` where nobody has labelled it yet."""
        label_row = int(self._label_row[row])
        if label_row < 0:
            return None
        offsets, columns, extra = self._boxes
        here = slice(offsets[label_row], offsets[label_row + 1])
        return Labels(
            boxes=np.stack([columns[k][here].astype(np.float64) for k in "xywh"], axis=1),
            class_ids=columns["class_id"][here].astype(np.int64),
            crowd=columns["crowd"][here].astype(bool),
            extra=tuple(json.loads(e) for e in extra[here].to_pylist()),
            labelled_at=self._labels["labelled_at"][label_row].as_py(),
            annotator=self._labels["annotator"][label_row].as_py(),
        )

    def frame(self, row: int) -> Frame:
        """One frame; its ``jpeg`` is a view into the mapped file."""
        values = {name: self._table[name][row].as_py() for name in FRAMES_SCHEMA.names if name not in ("jpeg", "extra")}
        jpeg = memoryview(self._table["jpeg"][row].as_buffer())
        return Frame(jpeg=jpeg, extra=json.loads(self._table["extra"][row].as_py()), labels=self.labels(row), **values)

    def frames(self, split: Split | None = None, *, labelled: bool = True) -> Frames:
        """The frames of one split, or all; only those that somebody labelled unless ``labelled`` is false."""
        keep = np.ones(len(self), bool) if split is None else self.splits == split
        if labelled:
            keep &= self._label_row >= 0
        return Frames([(self, np.flatnonzero(keep))])

    def box_counts(self, split: Split | None = None) -> NDArray[np.int64]:
        """Boxes per class index (id - 1), ``(classes,)``, crowds not counted."""
        offsets, columns, _ = self._boxes
        rows = self._label_row if split is None else self._label_row[self.splits == split]
        counts = np.zeros(len(self.taxonomy.classes), np.int64)
        for row in rows[rows >= 0]:
            here = slice(offsets[row], offsets[row + 1])
            ids = columns["class_id"][here][~columns["crowd"][here].astype(bool)].astype(np.int64)
            np.add.at(counts, ids - 1, 1)
        return counts


def turns_of(root: Path) -> list[str]:
    """The names of a log's complete turns, oldest first."""
    return sorted(path.stem for path in (root / "labels").glob("[!.]*.parquet"))


def append_turn(root: Path, name: str, frames: Iterable[Frame], labels: Iterable[tuple[str, Labels]], taxonomy: Taxonomy) -> str | None:
    """Append one turn: new frames and, by SHA-256, new labels of frames in this turn or before it.

    Frames already in the log are left out, and labels that say what the log already says: so appending the same thing twice changes
    nothing and returns ``None``; otherwise the new turn's name is returned. ``Frame.labels`` is not read here. Whole or not at all.

    Raises :class:`UserError` for labels of a frame that is neither in the log nor in the turn, and for class ids the taxonomy lacks.
    """
    if not re.fullmatch(r"[a-z0-9][a-z0-9_.]*", name):
        raise UserError(f"turn name {name!r}: use small letters, digits, '_' and '.'")
    (root / "frames").mkdir(parents=True, exist_ok=True)
    (root / "labels").mkdir(parents=True, exist_ok=True)
    with _locked(root):
        log = Log(root, taxonomy)
        _sweep_unfinished(root, log.turns)
        digest = hashlib.sha256()
        staged = root / "frames" / ".staged"
        with written_whole(staged) as temporary:
            added = _write_frames(temporary, (f for f in frames if f.sha256 not in log.row_of), digest)
        fresh = list(_changed(log, added, labels, taxonomy))
        if not added and not fresh:
            staged.unlink()
            return None
        for sha, one in fresh:
            digest.update(json.dumps([sha, _box_rows(one)], sort_keys=True).encode())
        sequence = int(log.turns[-1].split("-")[0]) + 1 if log.turns else 1
        turn = f"{sequence:05d}-{name}-{digest.hexdigest()[:12]}"
        staged.replace(root / "frames" / f"{turn}.arrow")
        with written_whole(root / "labels" / f"{turn}.parquet") as temporary:
            pq.write_table(_labels_table(fresh, taxonomy), temporary, compression="zstd")
    return turn


def _write_frames(path: Path, frames: Iterator[Frame], digest: "hashlib._Hash") -> set[str]:
    written: set[str] = set()
    batch: list[dict[str, Any]] = []
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, FRAMES_SCHEMA) as writer:

        def flush() -> None:
            if batch:
                writer.write_batch(pa.RecordBatch.from_pylist(batch, schema=FRAMES_SCHEMA))
                batch.clear()

        for frame in frames:
            if frame.sha256 in written:
                continue
            written.add(frame.sha256)
            digest.update(frame.sha256.encode())
            row = {name: getattr(frame, name) for name in FRAMES_SCHEMA.names}
            batch.append(row | {"jpeg": bytes(frame.jpeg), "extra": json.dumps(frame.extra, sort_keys=True)})
            if len(batch) == FRAMES_PER_BATCH:
                flush()
        flush()
    return written


def _changed(log: Log, added: set[str], labels: Iterable[tuple[str, Labels]], taxonomy: Taxonomy) -> Iterator[tuple[str, Labels]]:
    for sha, one in dict(labels).items():
        row = log.row_of.get(sha)
        if row is None and sha not in added:
            raise UserError(f"labels for frame {sha}, which is neither in {log.root} nor in this turn; append the frame first")
        if unknown := sorted(set(one.class_ids.tolist()) - set(taxonomy.name_of)):
            raise UserError(f"labels for frame {sha}: the taxonomy has no class with id {unknown}")
        before = log.labels(row) if row is not None else None
        if before is None or not before.same_boxes(one):
            yield sha, one


def _box_rows(labels: Labels) -> list[dict[str, Any]]:
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
        for (x, y, w, h), c, k, e in zip(labels.boxes, labels.class_ids, labels.crowd, labels.extra, strict=True)
    ]


def _labels_table(labels: Sequence[tuple[str, Labels]], taxonomy: Taxonomy) -> pa.Table:
    rows = [{"sha256": sha, "labelled_at": one.labelled_at, "annotator": one.annotator, "boxes": _box_rows(one)} for sha, one in labels]
    table = pa.Table.from_pylist(rows, schema=LABELS_SCHEMA)
    return table.replace_schema_metadata({TAXONOMY_KEY: json.dumps(taxonomy.name_of).encode()})


def _map_frames(root: Path, turn: str) -> pa.Table:
    path = root / "frames" / f"{turn}.arrow"
    try:
        return pa.ipc.open_file(pa.memory_map(str(path))).read_all()
    except (OSError, pa.ArrowInvalid) as error:
        raise UserError(f"{path}: frames of turn {turn} are missing or damaged ({error}). `dvc checkout` restores them.") from None


def _read_labels(root: Path, turn: str, taxonomy: Taxonomy) -> pa.Table:
    path = root / "labels" / f"{turn}.parquet"
    try:
        table = pq.read_table(path, schema=LABELS_SCHEMA)
        names = json.loads((pq.read_schema(path).metadata or {})[TAXONOMY_KEY])
    except (OSError, KeyError, ValueError, pa.ArrowInvalid) as error:
        raise UserError(f"{path}: labels of turn {turn} are missing or damaged ({error}). `dvc checkout` restores them.") from None
    changed = [
        f"  id {i}: was {name!r}, is {taxonomy.name_of.get(int(i), 'gone')!r}"
        for i, name in names.items()
        if taxonomy.name_of.get(int(i)) != name
    ]
    if changed:
        raise UserError(
            f"{path}: the taxonomy's ids changed their meaning since turn {turn} was labelled:\n"
            + "\n".join(changed)
            + "\nGive those ids their names back, and append new classes at the end."
        )
    return table.replace_schema_metadata(None)


def _sweep_unfinished(root: Path, turns: Sequence[str]) -> None:
    complete = set(turns)
    for path in (root / "frames").iterdir():
        if path.stem not in complete:
            path.unlink()  # frames of an append that died: their source is still where it was
    for path in (root / "labels").glob(".*.part"):
        path.unlink()


@contextmanager
def _locked(root: Path) -> Iterator[None]:
    """One append at a time. The lock file lies beside the log, not in it, so that DVC does not version it."""
    with (root.parent / f".{root.name}.lock").open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
