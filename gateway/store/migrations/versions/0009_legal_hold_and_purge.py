"""A job may be on legal hold, and says when its files were deleted."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("job", sa.Column("legal_hold", sa.Boolean(), nullable=False, server_default=sa.false()))
    op.add_column("job", sa.Column("purged_at", sa.DateTime(), nullable=True))
    op.create_index("ix_job_purged_at", "job", ["purged_at"])


def downgrade() -> None:
    op.drop_index("ix_job_purged_at", "job")
    op.drop_column("job", "purged_at")
    op.drop_column("job", "legal_hold")
