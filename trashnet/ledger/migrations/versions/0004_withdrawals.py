"""Frames may be withdrawn: who asked for it, when and why, and the indexes that find frames for it."""

import sqlalchemy as sa
from alembic import op

from trashnet.ledger.tables import UtcDateTime

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Make the tables of withdrawals, and index frames by bin and by what they duplicate."""
    with op.batch_alter_table("frames", schema=None) as batch_op:
        batch_op.create_index("ix_frames_bin_id", ["bin_id"], unique=False)
        batch_op.create_index("ix_frames_duplicate_of", ["duplicate_of"], unique=False)
    op.create_table(
        "withdrawals",
        sa.Column(
            "id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False
        ),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("asked_by", sa.String(length=256), nullable=False),
        sa.Column("asked_at", UtcDateTime(timezone=True), nullable=False),
        sa.Column("finished_at", UtcDateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_withdrawals")),
    )
    op.create_table(
        "withdrawn_frames",
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("state_before", sa.String(length=16), nullable=False),
        sa.Column("withdrawal_id", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["sha256"], ["frames.sha256"]),
        sa.ForeignKeyConstraint(["withdrawal_id"], ["withdrawals.id"]),
        sa.PrimaryKeyConstraint("sha256", name=op.f("pk_withdrawn_frames")),
    )
    with op.batch_alter_table("withdrawn_frames", schema=None) as batch_op:
        batch_op.create_index(
            batch_op.f("ix_withdrawn_frames_withdrawal_id"), ["withdrawal_id"], unique=False
        )
