"""How much retention has removed."""

import sqlalchemy as sa
from alembic import op

from trashnet.ledger.tables import UtcDateTime

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    """Make the table of what was removed."""
    op.create_table(
        "removals",
        sa.Column("what", sa.String(length=64), nullable=False),
        sa.Column("count", sa.BigInteger(), nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.Column("last_at", UtcDateTime(), nullable=False),
        sa.PrimaryKeyConstraint("what", name=op.f("pk_removals")),
    )
