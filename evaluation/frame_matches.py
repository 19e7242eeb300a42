"""What became of every item of every frame, kept beside the scorecard so that two models can be paired later.

The file is Parquet with a row per frame, in the order of the ground truth:

- ``sha256``, ``group``: string; the frame, and the group that its split was fixed by;
- ``bin_id``: string or null, the bin that captured it;
- ``items``: list of ``{class_id, outcome, detection_class_id, score}`` in the order of the labels, without
  crowds; ``outcome`` is ``right``, ``wrong`` or ``missed``, and a missed item has no detection (null);
- ``false_detections``: list of ``{class_id, score}``, those that met no item, best first.

Its metadata holds ``format``, ``model``, ``digest`` (of the ground truth) and ``sort_score``: only detections
from this score on count.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self, get_args

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from evaluation.flat_arrays import GroundTruth, Predictions
from evaluation.sorting_accuracy import IGNORED, MISSED, UNMATCHED, Matches, Outcome, destinations
from trashnet.errors import UserError
from trashnet.files import atomic_write
from trashnet.taxonomy import Taxonomy

FORMAT = "1"
OUTCOMES: tuple[Outcome, ...] = get_args(Outcome)
RIGHT_CODE, WRONG_CODE, MISSED_CODE = range(3)
_SCHEMA = pa.schema(
    [
        pa.field("sha256", pa.string(), nullable=False),
        pa.field("group", pa.string(), nullable=False),
        pa.field("bin_id", pa.string()),
        pa.field(
            "items",
            pa.list_(
                pa.struct(
                    [
                        pa.field("class_id", pa.int32(), nullable=False),
                        pa.field("outcome", pa.string(), nullable=False),
                        pa.field("detection_class_id", pa.int32()),
                        pa.field("score", pa.float64()),
                    ]
                )
            ),
            nullable=False,
        ),
        pa.field(
            "false_detections",
            pa.list_(
                pa.struct(
                    [
                        pa.field("class_id", pa.int32(), nullable=False),
                        pa.field("score", pa.float64(), nullable=False),
                    ]
                )
            ),
            nullable=False,
        ),
    ]
)
_REMEDY = "`dvc repro evaluate` writes it anew."


@dataclass(frozen=True)
class FrameMatches:
    """One model's outcomes on one split, as flat arrays.

    Attributes:
        model: The model's name.
        digest: The ground truth's (:meth:`evaluation.flat_arrays.GroundTruth.digest`).
        sort_score: The score from which detections count.
        images, groups, bin_ids: Per frame its SHA-256, its group, and its bin or ``None``; length ``F``.
        item_frame: int64 ``(N,)``, the position of each item's frame, never descending.
        item_class_ids: int64 ``(N,)``.
        outcomes: int8 ``(N,)``, positions in :data:`OUTCOMES`: right, wrong, missed.
        detection_class_ids: int64 ``(N,)``, the class of the detection that met the item, ``MISSED`` (-1)
            without one.
        item_scores: float64 ``(N,)``, its score, NaN without one.
        false_frame: int64 ``(M,)``, the position of each false detection's frame, never descending.
        false_class_ids: int64 ``(M,)``.
        false_scores: float64 ``(M,)``.
    """

    model: str
    digest: str
    sort_score: float
    images: tuple[str, ...]
    groups: tuple[str, ...]
    bin_ids: tuple[str | None, ...]
    item_frame: NDArray[np.int64]
    item_class_ids: NDArray[np.int64]
    outcomes: NDArray[np.int8]
    detection_class_ids: NDArray[np.int64]
    item_scores: NDArray[np.float64]
    false_frame: NDArray[np.int64]
    false_class_ids: NDArray[np.int64]
    false_scores: NDArray[np.float64]

    @classmethod
    def collect(
        cls,
        model: str,
        sort_score: float,
        truth: GroundTruth,
        acted: Predictions,
        matches: Matches,
        taxonomy: Taxonomy,
        groups: Sequence[str],
        bin_ids: Sequence[str | None],
    ) -> Self:
        """From what was matched. ``acted`` and ``matches``: those from ``sort_score`` on."""
        belongs, goes = destinations(truth, acted, matches, taxonomy.stream_of)
        item = matches.detection_indices != IGNORED
        detection = matches.detection_indices[item]
        met = detection >= 0
        outcomes = np.full(len(detection), MISSED_CODE, np.int8)
        outcomes[met] = np.where((belongs == goes)[item][met], RIGHT_CODE, WRONG_CODE)
        class_ids, scores = np.full(len(detection), MISSED), np.full(len(detection), np.nan)
        class_ids[met], scores[met] = acted.class_ids[detection[met]], acted.scores[detection[met]]
        false = matches.item_indices == UNMATCHED
        return cls(
            model,
            truth.digest(),
            sort_score,
            truth.images,
            tuple(groups),
            tuple(bin_ids),
            truth.image[item],
            truth.class_ids[item],
            outcomes,
            class_ids,
            scores,
            acted.image[false],
            acted.class_ids[false],
            acted.scores[false],
        )

    def require_same_truth(self, other: "FrameMatches") -> None:
        """Raise :class:`UserError` unless both judged the same frames with the same labels."""
        if self.digest != other.digest:
            raise UserError(
                f"{self.model} and {other.model} were judged on different frames or labels (digests "
                f"{self.digest[:12]} and {other.digest[:12]}), so their outcomes cannot be paired. "
                "`dvc repro evaluate` judges this checkout's models on the same frames, `trashnet gate "
                "CHALLENGER CHAMPION` two candidates."
            )

    def write(self, path: Path) -> None:
        """Write the file, whole or not at all."""
        codes = np.array(OUTCOMES, dtype=object)
        missed = self.outcomes == MISSED_CODE
        items = pa.StructArray.from_arrays(
            [
                pa.array(self.item_class_ids, pa.int32()),
                pa.array(codes[self.outcomes], pa.string()),
                pa.array(self.detection_class_ids, pa.int32(), mask=missed),
                pa.array(self.item_scores, pa.float64(), mask=missed),
            ],
            fields=list(_SCHEMA.field("items").type.value_type),
        )
        false = pa.StructArray.from_arrays(
            [pa.array(self.false_class_ids, pa.int32()), pa.array(self.false_scores, pa.float64())],
            fields=list(_SCHEMA.field("false_detections").type.value_type),
        )
        metadata = {
            "format": FORMAT,
            "model": self.model,
            "digest": self.digest,
            "sort_score": repr(self.sort_score),
        }
        table = pa.Table.from_arrays(
            [
                pa.array(self.images, pa.string()),
                pa.array(self.groups, pa.string()),
                pa.array(self.bin_ids, pa.string()),
                pa.ListArray.from_arrays(self._offsets(self.item_frame), items),
                pa.ListArray.from_arrays(self._offsets(self.false_frame), false),
            ],
            schema=_SCHEMA.with_metadata(metadata),
        )
        with atomic_write(path) as temporary:
            pq.write_table(table, temporary, compression="zstd")

    def _offsets(self, frame: NDArray[np.int64]) -> pa.Array:
        return pa.array(np.searchsorted(frame, np.arange(len(self.images) + 1)), pa.int32())

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a file. Raises :class:`UserError` if it is missing, damaged or of another format."""
        try:
            table = pq.read_table(path)
            metadata = {k.decode(): v.decode() for k, v in (table.schema.metadata or {}).items()}
            if metadata.get("format") != FORMAT:
                raise UserError(
                    f"{path}: per-frame matches of format {metadata.get('format')}, not {FORMAT}. {_REMEDY}"
                )
            return cls._from_table(table, metadata)
        except FileNotFoundError:
            raise UserError(f"{path}: no such per-frame matches. {_REMEDY}") from None
        except (pa.ArrowException, KeyError, ValueError) as error:
            raise UserError(f"{path}: not per-frame matches ({error!r}). {_REMEDY}") from None

    @classmethod
    def _from_table(cls, table: pa.Table, metadata: Mapping[str, str]) -> Self:
        item_frame, items = _flatten(table.column("items"))
        false_frame, false = _flatten(table.column("false_detections"))
        class_id, outcome, detection_class_id, score = items.flatten()
        false_class_id, false_score = false.flatten()
        code_of = {name: code for code, name in enumerate(OUTCOMES)}
        return cls(
            metadata["model"],
            metadata["digest"],
            float(metadata["sort_score"]),
            tuple(table.column("sha256").to_pylist()),
            tuple(table.column("group").to_pylist()),
            tuple(table.column("bin_id").to_pylist()),
            item_frame,
            _numbers(class_id),
            np.array([code_of[name] for name in outcome.to_pylist()], np.int8),
            _numbers(detection_class_id.fill_null(MISSED)),
            np.asarray(score.fill_null(np.nan).to_numpy(zero_copy_only=False), np.float64),
            false_frame,
            _numbers(false_class_id),
            np.asarray(false_score.to_numpy(zero_copy_only=False), np.float64),
        )


def _flatten(column: pa.ChunkedArray) -> tuple[NDArray[np.int64], pa.StructArray]:
    """A column of lists as one array, and the position of each entry's frame."""
    lists = column.combine_chunks()
    lengths = lists.value_lengths().to_numpy(zero_copy_only=False)
    return np.repeat(np.arange(len(lists)), lengths).astype(np.int64), lists.flatten()


def _numbers(array: pa.Array) -> NDArray[np.int64]:
    return np.asarray(array.to_numpy(zero_copy_only=False), np.int64)
