"""The two files of a turn: their names, columns, and how they are read."""

import json
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from trashnet.errors import UserError
from trashnet.taxonomy import Taxonomy

UTC_MICROSECONDS = pa.timestamp("us", tz="UTC")
FRAMES_SCHEMA = pa.schema(
    [
        pa.field("sha256", pa.string(), nullable=False),
        pa.field("jpeg", pa.large_binary(), nullable=False),
        pa.field("width", pa.int32(), nullable=False),
        pa.field("height", pa.int32(), nullable=False),
        pa.field("split", pa.string(), nullable=False),
        pa.field("group", pa.string(), nullable=False),  # all frames of a group are in one split
        pa.field("phash", pa.uint64(), nullable=False),  # 0: the image is too flat for a perceptual hash
        pa.field("file_name", pa.string(), nullable=False),  # in its source
        pa.field("bin_id", pa.string()),
        pa.field("burst", pa.string()),
        pa.field("captured_at", UTC_MICROSECONDS),
        pa.field("extra", pa.string(), nullable=False),  # JSON: keys of its source without a column here
        # How the frame was chosen (`trashnet.choice`); null: unknown, as in turns from before version 0.4.
        pa.field("upload_reason", pa.string()),
        pa.field("selected_by", pa.string()),
    ]
)
# Columns that older turns lack: they are read as null.
NEW_FRAME_COLUMNS = ("upload_reason", "selected_by")
NEW_LABEL_COLUMNS = ("prelabelled",)
OLD_FRAMES_SCHEMA = pa.schema([f for f in FRAMES_SCHEMA if f.name not in NEW_FRAME_COLUMNS])
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
        # An empty list is a background frame. Null takes the label back: the frame has none any more.
        pa.field("boxes", pa.list_(BOX_TYPE)),
        # Whether the annotator started from a model's boxes; null: unknown.
        pa.field("prelabelled", pa.bool_()),
    ]
)
WITHDRAWN_SCHEMA = pa.schema(
    [
        pa.field("sha256", pa.string(), nullable=False),
        pa.field("turn", pa.string(), nullable=False),  # that brought the frame
        pa.field("split", pa.string(), nullable=False),
        pa.field("group", pa.string(), nullable=False),
        pa.field("reason", pa.string(), nullable=False),
        pa.field("withdrawn_at", UTC_MICROSECONDS, nullable=False),
    ]
)
# Names of turns that bring no frames: one says which frames are withdrawn, the other that files were
# rewritten without them.
WITHDRAWN, COMPACTED = "withdrawn", "compacted"
TAXONOMY_KEY = b"trashnet.taxonomy"  # in the schema's metadata: the class names when the turn was written


def turns_of(root: Path) -> list[str]:
    """Return the names of a log's complete turns, oldest first."""
    return sorted(path.stem for path in (root / "labels").glob("[!.]*.parquet"))


def name_of_turn(turn: str) -> str:
    """The name within ``<sequence>-<name>-<digest>``.

    >>> name_of_turn("00002-bins-0123456789ab")
    'bins'
    """
    return turn.partition("-")[2].partition("-")[0]


def version_of_turn(turn: str) -> str:
    """The dataset version, a git tag, that a turn's last file makes.

    >>> version_of_turn("00002-bins-0123456789ab")
    'data-00002'
    """
    return f"data-{turn.split('-')[0]}"


def map_frames(root: Path, turn: str) -> list[pa.RecordBatch]:
    """Memory-map the frames of a turn. Raises :class:`UserError` if the file is missing or damaged."""
    path = root / "frames" / f"{turn}.arrow"
    try:
        with pa.ipc.open_file(pa.memory_map(str(path))) as reader:
            if not (reader.schema.equals(FRAMES_SCHEMA) or reader.schema.equals(OLD_FRAMES_SCHEMA)):
                raise pa.ArrowInvalid("its columns are not those of a frames file")
            return [_with_all_columns(reader.get_batch(i)) for i in range(reader.num_record_batches)]
    except (OSError, pa.ArrowInvalid) as error:
        raise UserError(
            f"{path}: frames of turn {turn} are missing or damaged ({error}). `dvc checkout` restores them."
        ) from None


def read_labels(root: Path, turn: str, taxonomy: Taxonomy) -> pa.Table:
    """Read the labels of a turn.

    Raises :class:`UserError` if the file is missing or damaged, or if class ids of its boxes have other names
    now.
    """
    path = root / "labels" / f"{turn}.parquet"
    try:
        table = pq.ParquetFile(path).read(use_threads=False)  # faster, because the files are small
        names = json.loads((table.schema.metadata or {})[TAXONOMY_KEY])
        for name in set(NEW_LABEL_COLUMNS) - set(table.column_names):
            table = table.append_column(LABELS_SCHEMA.field(name), pa.nulls(len(table), pa.bool_()))
        table = table.cast(LABELS_SCHEMA)
    except (OSError, KeyError, ValueError, pa.ArrowInvalid) as error:
        raise UserError(
            f"{path}: labels of turn {turn} are missing or damaged ({error}). `dvc checkout` restores them."
        ) from None
    renamed = {i: name for i, name in names.items() if taxonomy.name_of.get(int(i)) != name}
    used = _used_classes(table) if renamed else set()
    changed = [
        f"  id {i}: was {name!r}, is {taxonomy.name_of.get(int(i), 'gone')!r}"
        for i, name in renamed.items()
        if int(i) in used
    ]
    if changed:
        raise UserError(
            f"{path}: the taxonomy's ids changed their names since turn {turn} was labelled:\n"
            + "\n".join(changed)
            + "\nGive those ids their names back, and append new classes at the end."
        )
    return table.replace_schema_metadata(None)


def withdrawn_path(root: Path, turn: str) -> Path:
    """Where a turn says which frames are withdrawn."""
    return root / "withdrawn" / f"{turn}.parquet"


def read_withdrawn(root: Path, turns: Sequence[str]) -> pa.Table:
    """Read which frames are withdrawn, in all turns that say so.

    Raises :class:`UserError` if a file is missing or damaged: no frame may come back by a file's loss.
    """
    tables = [WITHDRAWN_SCHEMA.empty_table()]
    for turn in turns:
        if name_of_turn(turn) != WITHDRAWN:
            continue
        try:
            table = pq.ParquetFile(withdrawn_path(root, turn)).read(use_threads=False)
            tables.append(table.cast(WITHDRAWN_SCHEMA))
        except (OSError, ValueError, pa.ArrowInvalid) as error:
            raise UserError(
                f"{withdrawn_path(root, turn)}: missing or damaged ({error}). `dvc checkout` restores it."
            ) from None
    return pa.concat_tables(tables)


def _with_all_columns(batch: pa.RecordBatch) -> pa.RecordBatch:
    """The batch, of an older turn with nulls for the columns that it lacks; no image is copied."""
    if batch.schema.equals(FRAMES_SCHEMA):
        return batch
    missing = [pa.nulls(len(batch), pa.string()) for _ in NEW_FRAME_COLUMNS]
    return pa.RecordBatch.from_arrays([*batch.columns, *missing], schema=FRAMES_SCHEMA)


def _used_classes(labels: pa.Table) -> set[int]:
    """The class ids that boxes have: a class without any box may leave the taxonomy."""
    boxes = pc.list_flatten(labels["boxes"]).combine_chunks()
    return set(pc.unique(boxes.field("class_id")).to_pylist())
