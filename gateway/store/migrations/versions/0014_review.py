"""A job ranks by what is at stake, has one reviewer at a time, and is final only after two decisions."""

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("job", sa.Column("stake", sa.Integer(), nullable=False, server_default="0"))
    op.execute("UPDATE job SET stake = 9 WHERE status NOT IN ('NEEDS_REVIEW', 'FAILED')")
    for name in ("reviewer", "traces_agreed_by", "patient_agreed_by"):
        op.add_column("job", sa.Column(name, sa.String(), nullable=False, server_default=""))
    op.add_column("job", sa.Column("reviewer_until", sa.DateTime(), nullable=True))
    op.create_index("ix_job_stake", "job", ["stake"])
    op.create_table(
        "review_decision",
        sa.Column("job_id", sa.String(), sa.ForeignKey("job.id"), primary_key=True),
        sa.Column("verdict", sa.String(length=16), nullable=False),
        sa.Column("reason", sa.String(), nullable=False),
        sa.Column("actor", sa.String(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("decided_at", sa.DateTime(), nullable=False),
        sa.Column("due_at", sa.DateTime(), nullable=False),
    )
    op.create_index("ix_review_decision_due_at", "review_decision", ["due_at"])


def downgrade() -> None:
    op.drop_index("ix_review_decision_due_at", "review_decision")
    op.drop_table("review_decision")
    op.drop_index("ix_job_stake", "job")
    for name in ("reviewer_until", "patient_agreed_by", "traces_agreed_by", "reviewer", "stake"):
        op.drop_column("job", name)
