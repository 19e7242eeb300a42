"""Annotations are keyed by Label Studio's installation and id, and frames that cannot grow are set aside."""

import sqlalchemy as sa
from alembic import op

from trashnet.ledger.tables import UtcDateTime

revision = "0003"
down_revision = "0002"

DELETED = "deleted in Label Studio"  # the reason of annotations that were refused for being deleted


def upgrade() -> None:
    """Widen the annotations' key, name deleted ones as such, and make the table of frames set aside.

    Which installation the older annotations came from is not known: it stays empty until they are seen again.
    """
    with op.batch_alter_table("annotations", schema=None) as batch_op:
        batch_op.add_column(
            sa.Column("installation", sa.String(length=64), nullable=False, server_default="")
        )
        batch_op.drop_constraint("pk_annotations", type_="primary")
        batch_op.create_primary_key("pk_annotations", ["installation", "annotation_id"])
    annotations = sa.table("annotations", sa.column("outcome", sa.String), sa.column("reason", sa.Text))
    deleted = (annotations.c.outcome == "refused") & (annotations.c.reason == DELETED)
    op.execute(annotations.update().where(deleted).values(outcome="deleted"))
    op.create_table(
        "set_aside",
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("since", UtcDateTime(timezone=True), nullable=False),
        sa.Column("checked_at", UtcDateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["sha256"], ["frames.sha256"]),
        sa.PrimaryKeyConstraint("sha256", name=op.f("pk_set_aside")),
    )
    with op.batch_alter_table("set_aside", schema=None) as batch_op:
        batch_op.create_index("ix_set_aside_checked_at", ["checked_at", "sha256"], unique=False)
