"""The ledger's tables. A change here needs a migration beside it: a test compares the two."""

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Date,
    DateTime,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    TypeDecorator,
    text,
)
from sqlalchemy.engine import Dialect

from trashnet.boxes import Box
from trashnet.ledger.rows import ASKED_STATES

HASH_BANDS = 4  # of 16 bits each: hashes at most 3 bits apart share at least one
BAND_MASKS = tuple(0xFFFF << 16 * i for i in range(HASH_BANDS))


class UtcDateTime(TypeDecorator[object]):
    """A time in UTC. SQLite forgets the zone: it is checked on the way in and put back on the way out."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: object, dialect: Dialect) -> object:
        """Refuse a time without a zone: nobody could say later what it meant."""
        if isinstance(value, datetime):
            if value.tzinfo is None:
                raise ValueError(f"{value} has no time zone")
            return value.astimezone(UTC)
        return value

    def process_result_value(self, value: object, dialect: Dialect) -> object:
        """Give the zone back."""
        if isinstance(value, datetime):
            return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)
        return value


class BoxesJson(TypeDecorator[tuple[Box, ...]]):
    """Boxes: a tuple of :class:`~trashnet.boxes.Box` in the program, a list of ``{"label", "score", "box"}``
    in the database.
    """

    impl = JSON
    cache_ok = True

    def process_bind_param(self, value: Iterable[Box] | None, dialect: Dialect) -> Any:
        """Write the boxes' JSON form."""
        return None if value is None else [box.to_json() for box in value]

    def process_result_value(self, value: Any, dialect: Dialect) -> tuple[Box, ...] | None:
        """Read the boxes' JSON form."""
        return None if value is None else tuple(Box.from_json(box) for box in value)


def _partial_index(name: str, where: str, *columns: str) -> Index:
    return Index(name, *columns, sqlite_where=text(where), postgresql_where=text(where))


# Conditions on the state as indexes have them. A query must repeat them word for word, without parameters,
# so that a planner knows before it has the parameters that it may read the index.
ACCEPTED, QUARANTINED = "state = 'accepted'", "state = 'quarantined'"
ASKED = f"state IN ({', '.join(map(repr, ASKED_STATES))})"

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(column_0_label)s",
        "uq": "uq_%(table_name)s_%(column_0_name)s",
        "pk": "pk_%(table_name)s",
    }
)

frames = Table(
    "frames",
    metadata,
    Column("sha256", String(64), primary_key=True),
    Column("uploaded_sha256", String(64), unique=True, nullable=False),
    Column("state", String(16), nullable=False),
    Column("inbox_key", Text, nullable=False),
    Column("key", Text),
    Column("bin_id", String(128)),
    Column("burst", String(128)),
    Column("captured_at", UtcDateTime),
    Column("release", String(128)),
    Column("reason", Text),
    Column("upload_reason", String(16)),
    Column("selected_by", String(16)),
    Column("detections", BoxesJson),
    Column("width", Integer),
    Column("height", Integer),
    Column("phash", String(16)),
    # Of the hash, while the frame is one that others may re-encode; else null, and so not in the index.
    *(Column(f"band{i}", Integer) for i in range(HASH_BANDS)),
    Column("descriptor", LargeBinary),
    Column("received_at", UtcDateTime, nullable=False),
    Column("changed_at", UtcDateTime, nullable=False),
    Column("duplicate_of", String(64)),
    Column("quarantine_reason", String(64)),
    Column("note", Text),
    Column("score", Float),
    Column("explanation", Text),
    Column("prediction", BoxesJson),
    Column("model", String(128)),
    Column("task_id", BigInteger),
    Column("turn", String(128)),
    *(
        Index(f"ix_frames_bin_band{i}", "bin_id", f"band{i}", "captured_at", "sha256")
        for i in range(HASH_BANDS)
    ),
    Index("ix_frames_state_captured", "state", "captured_at", "sha256"),
    Index("ix_frames_state_turn", "state", "turn", "bin_id"),
    Index("ix_frames_bin_id", "bin_id"),
    # Every index that a row is not in makes each of its transitions cheaper. The next four are partial on
    # SQLite alone, and the state comes first although it is the same in all entries: SQLite has no statistics
    # here, and would else prefer another index that begins with the state. PostgreSQL in turn does not search
    # a partial index by a column that its condition fixes: it would read such an index from its beginning.
    Index("ix_frames_state_bin_score", "state", "bin_id", "score", "sha256", sqlite_where=text(ACCEPTED)),
    Index("ix_frames_state_model", "state", "model", sqlite_where=text(ACCEPTED)),
    Index("ix_frames_state_sha256", "state", "sha256", sqlite_where=text(ACCEPTED)),
    Index("ix_frames_state_upload_sha256", "state", "upload_reason", "sha256", sqlite_where=text(ACCEPTED)),
    _partial_index("ix_frames_quarantine_reason", QUARANTINED, "state", "quarantine_reason"),
    _partial_index("ix_frames_asked_burst", ASKED, "burst", "bin_id"),
    _partial_index("ix_frames_task_id", "task_id IS NOT NULL", "task_id"),
    _partial_index("ix_frames_duplicate_of", "duplicate_of IS NOT NULL", "duplicate_of"),
)

transitions = Table(
    "transitions",
    metadata,
    Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
    Column("sha256", String(64), ForeignKey("frames.sha256"), nullable=False, index=True),
    Column("from_state", String(16)),
    Column("to_state", String(16), nullable=False),
    Column("at", UtcDateTime, nullable=False),
    Column("note", Text),
)

annotations = Table(
    "annotations",
    metadata,
    # Every installation of Label Studio counts from 1; "" is the one that ledgers before 0.3 did not name.
    Column("installation", String(64), primary_key=True, default="", server_default=""),
    Column("annotation_id", BigInteger, primary_key=True, autoincrement=False),
    Column("task_id", BigInteger, nullable=False),
    Column("sha256", String(64), ForeignKey("frames.sha256"), nullable=False),
    Column("annotator", String(256), nullable=False),
    Column("labelled_at", UtcDateTime, nullable=False),
    Column("outcome", String(16), nullable=False),
    Column("boxes", BoxesJson, nullable=False),
    Column("reason", Text),
    Column("seconds", Float),
    Column("turn", String(128)),
    Column("prelabelled", Boolean),
    Index("ix_annotations_turn", "turn", "outcome"),
    Index("ix_annotations_sha256_outcome", "sha256", "outcome", "annotator"),
)

set_aside = Table(
    "set_aside",
    metadata,
    Column("sha256", String(64), ForeignKey("frames.sha256"), primary_key=True),
    Column("reason", Text, nullable=False),
    Column("since", UtcDateTime, nullable=False),
    Column("checked_at", UtcDateTime, nullable=False),
    Index("ix_set_aside_checked_at", "checked_at", "sha256"),
)

cursors = Table(
    "cursors", metadata, Column("name", String(64), primary_key=True), Column("value", Text, nullable=False)
)

turns = Table(
    "turns",
    metadata,
    Column("digest", String(64), primary_key=True),
    Column("name", String(128)),
    Column("state", String(16), nullable=False),
    Column("started_at", UtcDateTime, nullable=False),
    Column("finished_at", UtcDateTime),
    Column("frames", Integer, nullable=False),
    Column("boxes", Integer, nullable=False),
    Column("version", String(128)),
)

# What each bin sent on each day (UTC, of its reception), how many of its uploads waited when the inbox was
# last listed on that day, and how many of its frames when tasks were last made.
bin_days = Table(
    "bin_days",
    metadata,
    Column("day", Date, primary_key=True),
    Column("bin_id", String(64), primary_key=True),
    Column("uploads", Integer, nullable=False),
    Column("bytes", BigInteger, nullable=False),
    Column("uploads_waiting", Integer, nullable=False),
    Column("frames_waiting", Integer, nullable=False),
)

withdrawals = Table(
    "withdrawals",
    metadata,
    Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
    Column("reason", Text, nullable=False),
    Column("asked_by", String(256), nullable=False),
    Column("asked_at", UtcDateTime, nullable=False),
    Column("finished_at", UtcDateTime),
)

withdrawn_frames = Table(
    "withdrawn_frames",
    metadata,
    Column("sha256", String(64), ForeignKey("frames.sha256"), primary_key=True),
    Column("state_before", String(16), nullable=False),
    Column("withdrawal_id", BigInteger, ForeignKey("withdrawals.id"), nullable=False, index=True),
)

locks = Table(
    "locks",
    metadata,
    Column("name", String(64), primary_key=True),
    Column("owner", String(64), nullable=False),
    Column("held_until", UtcDateTime, nullable=False),
)

# How often something has happened; see `trashnet.ledger.counters`.
counters = Table(
    "counters",
    metadata,
    Column("name", String(64), primary_key=True),
    Column("count", BigInteger, nullable=False),
)

# How much retention has removed so far, of each kind.
removals = Table(
    "removals",
    metadata,
    Column("what", String(64), primary_key=True),
    Column("count", BigInteger, nullable=False),
    Column("bytes", BigInteger, nullable=False),
    Column("last_at", UtcDateTime, nullable=False),
)
