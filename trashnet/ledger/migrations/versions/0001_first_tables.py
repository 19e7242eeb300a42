"""The ledger's first tables."""

import sqlalchemy as sa
from alembic import op

from trashnet.ledger.tables import UtcDateTime

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Make frames, transitions, annotations, cursors and turns."""
    op.create_table(
        "cursors",
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("value", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_cursors")),
    )
    op.create_table(
        "frames",
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("uploaded_sha256", sa.String(length=64), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("inbox_key", sa.Text(), nullable=False),
        sa.Column("key", sa.Text(), nullable=True),
        sa.Column("bin_id", sa.String(length=128), nullable=True),
        sa.Column("burst", sa.String(length=128), nullable=True),
        sa.Column("captured_at", UtcDateTime(timezone=True), nullable=True),
        sa.Column("release", sa.String(length=128), nullable=True),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("detections", sa.JSON(), nullable=True),
        sa.Column("width", sa.Integer(), nullable=True),
        sa.Column("height", sa.Integer(), nullable=True),
        sa.Column("phash", sa.String(length=16), nullable=True),
        sa.Column("band0", sa.Integer(), nullable=True),
        sa.Column("band1", sa.Integer(), nullable=True),
        sa.Column("band2", sa.Integer(), nullable=True),
        sa.Column("band3", sa.Integer(), nullable=True),
        sa.Column("descriptor", sa.LargeBinary(), nullable=True),
        sa.Column("received_at", UtcDateTime(timezone=True), nullable=False),
        sa.Column("changed_at", UtcDateTime(timezone=True), nullable=False),
        sa.Column("duplicate_of", sa.String(length=64), nullable=True),
        sa.Column("quarantine_reason", sa.String(length=64), nullable=True),
        sa.Column("note", sa.Text(), nullable=True),
        sa.Column("score", sa.Float(), nullable=True),
        sa.Column("explanation", sa.Text(), nullable=True),
        sa.Column("prediction", sa.JSON(), nullable=True),
        sa.Column("model", sa.String(length=128), nullable=True),
        sa.Column("task_id", sa.BigInteger(), nullable=True),
        sa.Column("turn", sa.String(length=128), nullable=True),
        sa.PrimaryKeyConstraint("sha256", name=op.f("pk_frames")),
        sa.UniqueConstraint("uploaded_sha256", name=op.f("uq_frames_uploaded_sha256")),
    )
    with op.batch_alter_table("frames", schema=None) as batch_op:
        batch_op.create_index("ix_frames_band0", ["band0"], unique=False)
        batch_op.create_index("ix_frames_band1", ["band1"], unique=False)
        batch_op.create_index("ix_frames_band2", ["band2"], unique=False)
        batch_op.create_index("ix_frames_band3", ["band3"], unique=False)
        batch_op.create_index("ix_frames_state_captured", ["state", "captured_at", "sha256"], unique=False)
        batch_op.create_index("ix_frames_burst", ["burst", "bin_id"], unique=False)
        batch_op.create_index("ix_frames_state_model", ["state", "model"], unique=False)
        batch_op.create_index("ix_frames_state_score", ["state", "score", "sha256"], unique=False)
        batch_op.create_index("ix_frames_state_sha256", ["state", "sha256"], unique=False)
        batch_op.create_index("ix_frames_task_id", ["task_id"], unique=False)

    op.create_table(
        "turns",
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.Column("name", sa.String(length=128), nullable=True),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("started_at", UtcDateTime(timezone=True), nullable=False),
        sa.Column("finished_at", UtcDateTime(timezone=True), nullable=True),
        sa.Column("frames", sa.Integer(), nullable=False),
        sa.Column("boxes", sa.Integer(), nullable=False),
        sa.Column("version", sa.String(length=128), nullable=True),
        sa.PrimaryKeyConstraint("digest", name=op.f("pk_turns")),
    )
    op.create_table(
        "annotations",
        sa.Column("annotation_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("task_id", sa.BigInteger(), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("annotator", sa.String(length=256), nullable=False),
        sa.Column("labelled_at", UtcDateTime(timezone=True), nullable=False),
        sa.Column("outcome", sa.String(length=16), nullable=False),
        sa.Column("boxes", sa.JSON(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("seconds", sa.Float(), nullable=True),
        sa.Column("turn", sa.String(length=128), nullable=True),
        sa.ForeignKeyConstraint(
            ["sha256"],
            ["frames.sha256"],
        ),
        sa.PrimaryKeyConstraint("annotation_id", name=op.f("pk_annotations")),
    )
    with op.batch_alter_table("annotations", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_annotations_sha256"), ["sha256"], unique=False)
        batch_op.create_index("ix_annotations_turn", ["turn", "outcome"], unique=False)

    op.create_table(
        "transitions",
        sa.Column(
            "id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False
        ),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("from_state", sa.String(length=16), nullable=True),
        sa.Column("to_state", sa.String(length=16), nullable=False),
        sa.Column("at", UtcDateTime(timezone=True), nullable=False),
        sa.Column("note", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(
            ["sha256"],
            ["frames.sha256"],
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_transitions")),
    )
    with op.batch_alter_table("transitions", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_transitions_sha256"), ["sha256"], unique=False)
