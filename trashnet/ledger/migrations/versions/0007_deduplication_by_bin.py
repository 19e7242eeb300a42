"""Deduplication finds frames by bin, band of the hash and time, and only those that others can re-encode."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"

BANDS = ("band0", "band1", "band2", "band3")
UNIQUE_STATES = ("accepted", "tasked", "labelled", "released")


def upgrade() -> None:
    """Take the other frames' bands away, and make the indexes anew."""
    with op.batch_alter_table("frames", schema=None) as batch_op:
        for band in BANDS:
            batch_op.drop_index(f"ix_frames_{band}")
    frames = sa.table("frames", sa.column("state", sa.String), *(sa.column(band) for band in BANDS))
    others = frames.update().where(frames.c.state.not_in(UNIQUE_STATES))
    op.execute(others.values(dict.fromkeys(BANDS)))
    with op.batch_alter_table("frames", schema=None) as batch_op:
        for band in BANDS:
            columns = ["bin_id", band, "captured_at", "sha256"]
            batch_op.create_index(f"ix_frames_bin_{band}", columns, unique=False)
