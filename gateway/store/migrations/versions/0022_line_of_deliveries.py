"""The first in line at a destination is found without a look at all that wait there."""

from alembic import op

revision = "0022"
down_revision = "0021"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_index("ix_delivery_line", "delivery", ["status", "destination", "attempts", "id"])


def downgrade() -> None:
    op.drop_index("ix_delivery_line", "delivery")
