"""Read the dataset log: turns of frames and labels that are appended and never rewritten.

A turn is two files under the log's root: ``frames/<turn>.arrow`` (memory-mapped Arrow IPC, with the JPEG
bytes) and ``labels/<turn>.parquet`` (one row per labelled frame). The dataset is the fold over the turns in
the order of their names, ``<sequence>-<name>-<digest>``: a frame belongs to the first turn that holds it, and
its newest labels win, so that a later turn can correct them, or take them back: labels whose boxes are null
leave the frame without labels. A frame that a turn withdraws, in a third file ``withdrawn/<turn>.parquet``,
is not part of the dataset (``dataset.withdrawal``). ``dataset.append`` writes the log.
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
from dataset.turn_files import FRAMES_SCHEMA, LABELS_SCHEMA, map_frames, read_labels, read_withdrawn, turns_of
from trashnet.choice import FrameChoice, read_choice
from trashnet.errors import UserError
from trashnet.taxonomy import Taxonomy


class Frames(Sequence[Frame]):
    """A sequence of frames that are read on access; it can be concatenated with others and pickled."""

    def __init__(self, parts: Sequence[tuple["Log", NDArray[np.int64]]]) -> None:
        """Take rows, int64 ``(N,)``, of one or several logs, in this order."""
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
        """Return a frame's labels without reading its bytes."""
        return self._log_of(index).labels(int(self._rows[index]))

    def _log_of(self, index: int) -> "Log":
        return self._logs[int(self._which[index])]

    def take(self, indices: NDArray[np.int64]) -> "Frames":
        """Return the frames at these indices, int64 ``(N,)``, in this order."""
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
    """The fold over a log's turns, memory-mapped: opening reads names, sizes and labels, but no image.

    A pickle holds the path, not the data: a worker process maps the same files again.
    """

    def __init__(self, root: Path, taxonomy: Taxonomy, turns: Sequence[str] | None = None) -> None:
        """Open the log at ``root``.

        ``turns``: only these, for the dataset as a training saw it; what was withdrawn since stays withdrawn.

        Raises :class:`UserError` if there is none, if it lacks one of the turns, or if its class ids have
        other names in the taxonomy.
        """
        if not (root / "labels").is_dir():
            raise UserError(
                f"{root}: no dataset log here. `dvc pull` fetches it, `trashnet import` creates one."
            )
        self.root = root
        self.taxonomy = taxonomy
        every_turn = turns_of(root)
        self.turns = every_turn if turns is None else sorted(turns)
        if missing := sorted(set(self.turns) - set(every_turn)):
            raise UserError(
                f"{root}: the log has no turn {', '.join(missing)}. `git pull` and `dvc pull` fetch what "
                "others appended."
            )
        by_turn = {turn: map_frames(root, turn) for turn in self.turns}
        batches = [batch for turn in self.turns for batch in by_turn[turn]]
        self._turn_of_batch = [turn for turn in self.turns for _ in by_turn[turn]]
        self._starts: list[int] = np.cumsum([0, *(len(batch) for batch in batches)]).tolist()
        self._jpegs = [batch.column("jpeg") for batch in batches]
        self._table = pa.Table.from_batches(batches, FRAMES_SCHEMA)
        labels = [read_labels(root, turn, taxonomy) for turn in self.turns]
        self._labels = (pa.concat_tables(labels) if labels else LABELS_SCHEMA.empty_table()).combine_chunks()
        self._labels_per_turn = [len(table) for table in labels]
        self.withdrawn = frozenset(read_withdrawn(root, every_turn)["sha256"].to_pylist())
        # If two branches of a log were merged, both may hold a frame: the first occurrence counts. A frame
        # that was withdrawn lies in its file until the log is compacted, and does not count.
        self._kept: NDArray[np.int64] | None = None
        if self.withdrawn or len(pc.unique(self._table["sha256"])) < self._table.num_rows:
            names = np.asarray(self._table["sha256"].to_pylist(), dtype="U64")
            first = np.sort(np.unique(names, return_index=True)[1]).astype(np.int64)
            self._kept = first[~np.isin(names[first], sorted(self.withdrawn))]

    def __reduce__(self) -> tuple[type[Self], tuple[Path, Taxonomy, list[str]]]:
        return type(self), (self.root, self.taxonomy, self.turns)

    def __len__(self) -> int:
        return int(self._table.num_rows) if self._kept is None else len(self._kept)

    @cached_property
    def row_of(self) -> dict[str, int]:
        """The row of each frame by SHA-256."""
        return {sha: row for row, sha in enumerate(self.column("sha256"))}

    @cached_property
    def splits(self) -> NDArray[np.str_]:
        """Split of every row, ``(N,)``.

        Raises :class:`UserError` if a group lies in two splits, since a model would be tested on frames that
        resemble those it was trained on.
        """
        splits, groups = np.asarray(self.column("split"), dtype="U5"), self.column("group")
        first: dict[str, str] = {}
        pairs = zip(groups, splits.tolist(), strict=True)
        divided = sorted({group for group, split in pairs if first.setdefault(group, split) != split})
        if divided:
            raise UserError(
                f"{self.root}: {len(divided)} groups of frames lie in more than one split "
                f"({', '.join(divided[:3])}, ...): two branches each appended frames of them. "
                "Keep the turns of one branch and import the other's source again."
            )
        return splits

    def turns_of_rows(self) -> list[str]:
        """The turn that brought each frame, in the order of the rows."""
        sizes = np.diff(self._starts)
        by_stored_row = np.repeat(np.arange(len(sizes)), sizes)
        stored = by_stored_row if self._kept is None else by_stored_row[self._kept]
        return [self._turn_of_batch[batch] for batch in stored.tolist()]

    def turns_of_labels(self) -> list[str | None]:
        """The turn that brought each frame's newest labels, ``None`` for an unlabelled one, by row."""
        turns = np.repeat(np.arange(len(self.turns)), self._labels_per_turn)
        return [self.turns[turns[row]] if row >= 0 else None for row in self._label_row.tolist()]

    @cached_property
    def choices(self) -> list[FrameChoice]:
        """How every frame was chosen, in the order of the rows."""
        reasons = zip(self.column("upload_reason"), self.column("selected_by"), strict=True)
        return [read_choice(upload, selected) for upload, selected in reasons]

    def column(self, name: str) -> list[Any]:
        """Return one column of all frames; ``jpeg`` is read frame by frame instead."""
        if name == "jpeg":
            raise ValueError("the images are read frame by frame")
        values = self._table[name]
        return (values if self._kept is None else values.take(self._kept)).to_pylist()  # type: ignore[no-any-return]

    @cached_property
    def _label_row(self) -> NDArray[np.int64]:
        """The row of every frame's newest labels, int64 ``(N,)``, -1 for an unlabelled frame."""
        newest = np.full(len(self), -1, np.int64)
        taken_back = self._labels["boxes"].is_null().to_pylist()
        for label_row, sha in enumerate(self._labels["sha256"].to_pylist()):
            if (row := self.row_of.get(sha)) is not None:
                newest[row] = -1 if taken_back[label_row] else label_row  # later turns come later
        return newest

    @cached_property
    def _columns(self) -> dict[str, pa.Array]:
        """All columns but the images, each in one piece, so that reading a row searches no chunks.

        The copies take about 200 bytes per frame.
        """
        return {name: self._table[name].combine_chunks() for name in FRAMES_SCHEMA.names if name != "jpeg"}

    @cached_property
    def _boxes(
        self,
    ) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.int64], NDArray[np.bool_], pa.Array]:
        """The M boxes of all turns: offsets by row of labels, xywh ``(M, 4)``, ids, crowds and extras."""
        lengths = _to_numpy(pc.fill_null(pc.list_value_length(self._labels["boxes"]), 0).combine_chunks())
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        flat = pc.list_flatten(self._labels["boxes"]).combine_chunks()

        def values(name: str, dtype: type[np.generic]) -> NDArray[Any]:
            return _to_numpy(flat.field(name)).astype(dtype)

        boxes = np.stack([values(axis, np.float64) for axis in "xywh"], axis=1)
        return offsets, boxes, values("class_id", np.int64), values("crowd", np.bool_), flat.field("extra")

    @cached_property
    def _signatures(self) -> tuple[pa.Array, ...]:
        """Of each row of labels the time, the annotator, and whether it was pre-labelled."""
        names = ("labelled_at", "annotator", "prelabelled")
        return tuple(self._labels[name].combine_chunks() for name in names)

    def labels(self, row: int) -> Labels | None:
        """Return the newest labels of a frame, ``None`` for an unlabelled one."""
        label_row = int(self._label_row[row])
        if label_row < 0:
            return None
        offsets, boxes, class_ids, crowd, extra = self._boxes
        span = slice(int(offsets[label_row]), int(offsets[label_row + 1]))
        labelled_at, annotator, prelabelled = self._signatures
        return Labels(
            boxes=boxes[span].copy(),
            class_ids=class_ids[span].copy(),
            crowd=crowd[span].copy(),
            extra=tuple(_parse_extra(extra[i].as_py()) for i in range(span.start, span.stop)),
            labelled_at=labelled_at[label_row].as_py(),
            annotator=annotator[label_row].as_py(),
            prelabelled=prelabelled[label_row].as_py(),
        )

    def frame(self, row: int) -> Frame:
        """Read one frame; its ``jpeg`` is a view into the mapped file."""
        if not 0 <= row < len(self):
            raise IndexError(row)
        stored = row if self._kept is None else int(self._kept[row])
        batch = bisect_right(self._starts, stored) - 1
        jpeg = memoryview(self._jpegs[batch][stored - self._starts[batch]].as_buffer())
        values = {name: column[stored].as_py() for name, column in self._columns.items()}
        return Frame(jpeg=jpeg, labels=self.labels(row), **values | {"extra": _parse_extra(values["extra"])})

    def frames(self, split: Split | None = None, *, labelled: bool = True) -> Frames:
        """Select the frames of one split, or all; unlabelled ones only if ``labelled`` is false."""
        keep = np.ones(len(self), bool) if split is None else self.splits == split
        if labelled:
            keep &= self._label_row >= 0
        return Frames([(self, np.flatnonzero(keep))])

    def boxes_by_row(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return row and class index (id - 1) of all newest boxes but crowds, both int64 ``(M,)``."""
        offsets, _, class_ids, crowd, _ = self._boxes
        frame_of = np.full(len(offsets) - 1, -1, np.int64)  # by row of labels; -1 for outdated ones
        labelled = np.flatnonzero(self._label_row >= 0)
        frame_of[self._label_row[labelled]] = labelled
        rows = np.repeat(frame_of, np.diff(offsets))
        counted = (rows >= 0) & ~crowd
        return rows[counted], class_ids[counted] - 1

    def box_counts(self, split: Split | None = None) -> NDArray[np.int64]:
        """Count boxes per class index (id - 1), int64 ``(classes,)``, without crowds."""
        rows, classes = self.boxes_by_row()
        if split is not None:
            classes = classes[self.splits[rows] == split]
        return np.bincount(classes, minlength=len(self.taxonomy.classes)).astype(np.int64)


def _to_numpy(array: pa.Array) -> NDArray[Any]:
    """Convert an array without nulls; Arrow's ``to_numpy`` would import pandas, which is slow."""
    return np.from_dlpack(array.cast(pa.uint8()) if pa.types.is_boolean(array.type) else array)


def _parse_extra(extra: str) -> dict[str, Any]:
    # Most extras are empty, and parsing takes a third of the time of reading a frame.
    return {} if extra == "{}" else json.loads(extra)
