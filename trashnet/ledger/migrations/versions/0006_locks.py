"""Locks that processes on any machine share."""

import sqlalchemy as sa
from alembic import op

from trashnet.ledger.tables import UtcDateTime

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """Make the table of locks."""
    op.create_table(
        "locks",
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("owner", sa.String(length=64), nullable=False),
        sa.Column("held_until", UtcDateTime(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_locks")),
    )
