"""A job knows what was received for it: the same bytes under its key are a repeat, others are not."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("job", sa.Column("source_digest", sa.String(), nullable=False, server_default=""))


def downgrade() -> None:
    op.drop_column("job", "source_digest")
