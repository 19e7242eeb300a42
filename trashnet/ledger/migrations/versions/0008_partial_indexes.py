"""Indexes that hold only the frames that are looked for through them, and an index of refusals by reason."""

from alembic import op
from sqlalchemy import text

revision = "0008"
down_revision = "0007"

ACCEPTED = "state = 'accepted'"
# On SQLite alone: PostgreSQL does not search a partial index by a column that its condition fixes.
PARTIAL_ON_SQLITE = {
    "ix_frames_state_bin_score": ["state", "bin_id", "score", "sha256"],
    "ix_frames_state_model": ["state", "model"],
    "ix_frames_state_sha256": ["state", "sha256"],
}
REPLACED = ("ix_frames_burst", "ix_frames_task_id", "ix_frames_duplicate_of")
INDEXES = {
    "ix_frames_quarantine_reason": (["state", "quarantine_reason"], "state = 'quarantined'"),
    "ix_frames_asked_burst": (["burst", "bin_id"], "state IN ('tasked', 'labelled', 'released')"),
    "ix_frames_task_id": (["task_id"], "task_id IS NOT NULL"),
    "ix_frames_duplicate_of": (["duplicate_of"], "duplicate_of IS NOT NULL"),
}


def upgrade() -> None:
    """Make the indexes anew."""
    if op.get_bind().dialect.name == "sqlite":
        for name, columns in PARTIAL_ON_SQLITE.items():
            op.drop_index(name, table_name="frames")
            op.create_index(name, "frames", columns, unique=False, sqlite_where=text(ACCEPTED))
    for name in REPLACED:
        op.drop_index(name, table_name="frames")
    # Another index begins with the same column.
    op.drop_index("ix_annotations_sha256", table_name="annotations")
    for name, (columns, where) in INDEXES.items():
        op.create_index(
            name, "frames", columns, unique=False, sqlite_where=text(where), postgresql_where=text(where)
        )
