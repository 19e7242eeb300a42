"""How frames were chosen, whether annotators saw pre-labels, and how many tasks were made.

Of frames and annotations from before nobody knows: their columns are null.
"""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"

ACCEPTED = sa.text("state = 'accepted'")


def upgrade() -> None:
    """Add the columns, the index of exploration uploads, and the table of counters."""
    op.add_column("frames", sa.Column("upload_reason", sa.String(length=16), nullable=True))
    op.add_column("frames", sa.Column("selected_by", sa.String(length=16), nullable=True))
    op.add_column("annotations", sa.Column("prelabelled", sa.Boolean(), nullable=True))
    op.create_index(
        "ix_frames_state_upload_sha256",
        "frames",
        ["state", "upload_reason", "sha256"],
        unique=False,
        sqlite_where=ACCEPTED,
    )
    op.create_table(
        "counters",
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("count", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_counters")),
    )
