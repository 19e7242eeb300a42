"""Frames drawn at random say so in the field's word, and every query finds its rows through an index."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

OLD, NEW = "audit: chosen blindly", "exploration: chosen at random"


def upgrade() -> None:
    """Rewrite the explanations of frames that were drawn at random, and add the missing indexes."""
    frames = sa.table("frames", sa.column("explanation", sa.Text))
    reworded = frames.update().where(frames.c.explanation.startswith(OLD))
    op.execute(reworded.values(explanation=NEW + sa.func.substr(frames.c.explanation, len(OLD) + 1)))
    with op.batch_alter_table("frames", schema=None) as batch_op:
        batch_op.create_index("ix_frames_state_turn", ["state", "turn"], unique=False)
    with op.batch_alter_table("annotations", schema=None) as batch_op:
        batch_op.create_index(
            "ix_annotations_sha256_outcome", ["sha256", "outcome", "annotator"], unique=False
        )
