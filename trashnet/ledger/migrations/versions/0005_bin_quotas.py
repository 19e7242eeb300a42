"""What each bin sends a day is counted, and its frames are found and counted through indexes."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Make the counters, and bring the bin into the indexes of scores and turns."""
    op.create_table(
        "bin_days",
        sa.Column("day", sa.Date(), nullable=False),
        sa.Column("bin_id", sa.String(length=64), nullable=False),
        sa.Column("uploads", sa.Integer(), nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.Column("uploads_waiting", sa.Integer(), nullable=False),
        sa.Column("frames_waiting", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("day", "bin_id", name=op.f("pk_bin_days")),
    )
    with op.batch_alter_table("frames", schema=None) as batch_op:
        batch_op.drop_index("ix_frames_state_score")
        batch_op.drop_index("ix_frames_state_turn")
        batch_op.create_index("ix_frames_state_turn", ["state", "turn", "bin_id"], unique=False)
        batch_op.create_index(
            "ix_frames_state_bin_score", ["state", "bin_id", "score", "sha256"], unique=False
        )
