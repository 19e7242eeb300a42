"""The dataset log: turns of frames and labels, appended and never rewritten; the dataset is the fold over them.

A turn is two files under the log's root: ``frames/<turn>.arrow`` (an Arrow IPC file, memory-mapped, JPEG
bytes written once) and ``labels/<turn>.parquet`` (one row per labelled frame; of several rows for one frame
the newest turn's wins, which is how a correction is made). Turns are named ``<sequence>-<name>-<digest>`` and
fold in the order of their names. A frame belongs to the first turn that brought it. Here a log is read;
``dataset.append`` writes it.
"""

import json
from bisect import bisect_right
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Self, overload

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from dataset.frame import Frame, Labels, Split
from dataset.turn_files import FRAMES_SCHEMA, LABELS_SCHEMA, map_frames, read_labels, turns_of
from trashnet.errors import UserError
from trashnet.taxonomy import Taxonomy


class Frames(Sequence[Frame]):
    """A list of frames that reads each one when it is asked for; adds up with others and travels to worker processes."""

    def __init__(self, parts: Sequence[tuple["Log", NDArray[np.int64]]]) -> None:
        """From logs and the rows wanted of each, in this order."""
        self._logs: list[Log] = [log for log, _ in parts]
        self._which = np.concatenate(
            [np.full(len(rows), i, np.int32) for i, (_, rows) in enumerate(parts)] or [np.empty(0, np.int32)]
        )
        self._rows = np.concatenate(
            [np.asarray(rows, np.int64) for _, rows in parts] or [np.empty(0, np.int64)]
        )

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, index: int) -> Frame: ...
    @overload
    def __getitem__(self, index: slice) -> "Frames": ...
    def __getitem__(self, index: int | slice) -> "Frame | Frames":
        if isinstance(index, slice):
            return self.take(np.arange(len(self))[index])
        return self._log_of(index).frame(int(self._rows[index]))

    def labels(self, index: int) -> Labels | None:
        """The labels alone, without touching the frame's bytes."""
        return self._log_of(index).labels(int(self._rows[index]))

    def _log_of(self, index: int) -> "Log":
        return self._logs[int(self._which[index])]

    def take(self, indices: NDArray[np.int64]) -> "Frames":
        """The frames at these positions, in this order."""
        taken = Frames([])
        taken._logs, taken._which, taken._rows = self._logs, self._which[indices], self._rows[indices]
        return taken

    def __add__(self, other: "Frames") -> "Frames":
        both = Frames([])
        both._logs = self._logs + other._logs
        both._which = np.concatenate([self._which, other._which + np.int32(len(self._logs))])
        both._rows = np.concatenate([self._rows, other._rows])
        return both


class Log:
    """The fold over a log's turns, memory-mapped: opening reads names, sizes and labels, never the images.

    Pickling sends the path, not the data: a worker process maps the same files again.
    """

    def __init__(self, root: Path, taxonomy: Taxonomy) -> None:
        """Open the log at ``root``. Raises :class:`UserError` if there is none, or if its ids mean other names than the taxonomy's."""
        if not (root / "labels").is_dir():
            raise UserError(
                f"{root}: no dataset log here. `dvc pull` fetches it, `trashnet import` begins one."
            )
        self.root = root
        self.taxonomy = taxonomy
        self.turns = turns_of(root)
        batches = [batch for turn in self.turns for batch in map_frames(root, turn)]
        self._starts: list[int] = np.cumsum([0, *(len(batch) for batch in batches)]).tolist()
        self._jpegs = [batch.column("jpeg") for batch in batches]
        self._table = pa.Table.from_batches(batches, FRAMES_SCHEMA)
        labels = [read_labels(root, turn, taxonomy) for turn in self.turns]
        self._labels = (pa.concat_tables(labels) if labels else LABELS_SCHEMA.empty_table()).combine_chunks()
        # Two branches of a log that were merged may have brought one frame twice: it counts once, as the
        # first of them says.
        self._kept: NDArray[np.int64] | None = None
        if len(pc.unique(self._table["sha256"])) < self._table.num_rows:
            first = np.unique(np.asarray(self._table["sha256"].to_pylist()), return_index=True)[1]
            self._kept = np.sort(first).astype(np.int64)

    def __reduce__(self) -> tuple[type[Self], tuple[Path, Taxonomy]]:
        return type(self), (self.root, self.taxonomy)

    def __len__(self) -> int:
        return int(self._table.num_rows) if self._kept is None else len(self._kept)

    @cached_property
    def row_of(self) -> dict[str, int]:
        """Row by SHA-256."""
        return {sha: row for row, sha in enumerate(self.column("sha256"))}

    @cached_property
    def splits(self) -> NDArray[np.str_]:
        """Split of every row, ``(N,)``. Raises :class:`UserError` if a group lies in two splits: its frames would judge themselves."""
        splits, groups = np.asarray(self.column("split"), dtype="U5"), self.column("group")
        first: dict[str, str] = {}
        torn = sorted(
            {
                group
                for group, split in zip(groups, splits.tolist(), strict=True)
                if first.setdefault(group, split) != split
            }
        )
        if torn:
            raise UserError(
                f"{self.root}: {len(torn)} groups of frames lie in more than one split ({', '.join(torn[:3])}, ...): two branches each "
                "appended frames of them. Keep the turns of one branch and import the other's source again."
            )
        return splits

    def column(self, name: str) -> list[Any]:
        """One column of the frames, all rows; any but ``jpeg``, which is read frame by frame."""
        if name == "jpeg":
            raise ValueError("the images are read frame by frame")
        values = self._table[name]
        return (values if self._kept is None else values.take(self._kept)).to_pylist()  # type: ignore[no-any-return]

    @cached_property
    def _label_row(self) -> NDArray[np.int64]:
        """For every frame the row of its newest labels, -1 where it has none."""
        newest = np.full(len(self), -1, np.int64)
        for label_row, sha in enumerate(self._labels["sha256"].to_pylist()):
            if (row := self.row_of.get(sha)) is not None:
                newest[row] = label_row  # later turns come later
        return newest

    @cached_property
    def _words(self) -> dict[str, pa.Array]:
        """Everything but the images, one piece per column: a copy of some 200 bytes a frame, so that no row searches in pieces."""
        return {name: self._table[name].combine_chunks() for name in FRAMES_SCHEMA.names if name != "jpeg"}

    @cached_property
    def _boxes(
        self,
    ) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.int64], NDArray[np.bool_], pa.Array]:
        """Offsets ``(labelled + 1,)`` into all boxes ever labelled: their ``(M, 4)`` xywh, class ids, crowd flags and extras."""
        lengths = _numbers(pc.list_value_length(self._labels["boxes"]).combine_chunks())
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        flat = pc.list_flatten(self._labels["boxes"]).combine_chunks()

        def values(name: str, dtype: type[np.generic]) -> NDArray[Any]:
            return _numbers(flat.field(name)).astype(dtype)

        boxes = np.stack([values(axis, np.float64) for axis in "xywh"], axis=1)
        return offsets, boxes, values("class_id", np.int64), values("crowd", np.bool_), flat.field("extra")

    @cached_property
    def _signatures(self) -> tuple[pa.Array, pa.Array]:
        """When and by whom each row of labels was made."""
        return self._labels["labelled_at"].combine_chunks(), self._labels["annotator"].combine_chunks()

    def labels(self, row: int) -> Labels | None:
        """The newest labels of a frame; ``None`` where nobody has labelled it yet."""
        label_row = int(self._label_row[row])
        if label_row < 0:
            return None
        offsets, boxes, class_ids, crowd, extra = self._boxes
        here = slice(int(offsets[label_row]), int(offsets[label_row + 1]))
        labelled_at, annotator = self._signatures
        return Labels(
            boxes=boxes[here].copy(),
            class_ids=class_ids[here].copy(),
            crowd=crowd[here].copy(),
            extra=tuple(_parsed(extra[i].as_py()) for i in range(here.start, here.stop)),
            labelled_at=labelled_at[label_row].as_py(),
            annotator=annotator[label_row].as_py(),
        )

    def frame(self, row: int) -> Frame:
        """One frame; its ``jpeg`` is a view into the mapped file."""
        if not 0 <= row < len(self):
            raise IndexError(row)
        stored = row if self._kept is None else int(self._kept[row])
        number = bisect_right(self._starts, stored) - 1
        jpeg = memoryview(self._jpegs[number][stored - self._starts[number]].as_buffer())
        values = {name: column[stored].as_py() for name, column in self._words.items()}
        return Frame(jpeg=jpeg, labels=self.labels(row), **values | {"extra": _parsed(values["extra"])})

    def frames(self, split: Split | None = None, *, labelled: bool = True) -> Frames:
        """The frames of one split, or all; only those that somebody labelled unless ``labelled`` is false."""
        keep = np.ones(len(self), bool) if split is None else self.splits == split
        if labelled:
            keep &= self._label_row >= 0
        return Frames([(self, np.flatnonzero(keep))])

    def boxes_by_row(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Every box of the newest labels, crowds left out: its frame's row and its class index (id - 1), both ``(M,)``."""
        offsets, _, class_ids, crowd, _ = self._boxes
        frame_of = np.full(
            len(offsets) - 1, -1, np.int64
        )  # by label row: older labels of a frame belong to none
        labelled = np.flatnonzero(self._label_row >= 0)
        frame_of[self._label_row[labelled]] = labelled
        rows = np.repeat(frame_of, np.diff(offsets))
        counted = (rows >= 0) & ~crowd
        return rows[counted], class_ids[counted] - 1

    def box_counts(self, split: Split | None = None) -> NDArray[np.int64]:
        """Boxes per class index (id - 1), ``(classes,)``, crowds not counted."""
        rows, classes = self.boxes_by_row()
        if split is not None:
            classes = classes[self.splits[rows] == split]
        return np.bincount(classes, minlength=len(self.taxonomy.classes)).astype(np.int64)


def _numbers(array: pa.Array) -> NDArray[Any]:
    """The values of an array without nulls. Arrow's own ``to_numpy`` imports pandas first, which takes longer than opening the log."""
    return np.from_dlpack(array.cast(pa.uint8()) if pa.types.is_boolean(array.type) else array)


def _parsed(extra: str) -> dict[str, Any]:
    return (
        {} if extra == "{}" else json.loads(extra)
    )  # most are empty, and parsing is a third of what reading a frame costs
