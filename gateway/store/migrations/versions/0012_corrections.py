"""A job has what a person corrected on its pages, and runs before the others while that person waits."""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("job", sa.Column("corrections_json", sa.String(), nullable=False, server_default="{}"))
    op.add_column("job", sa.Column("urgent", sa.Boolean(), nullable=False, server_default=sa.false()))


def downgrade() -> None:
    op.drop_column("job", "urgent")
    op.drop_column("job", "corrections_json")
