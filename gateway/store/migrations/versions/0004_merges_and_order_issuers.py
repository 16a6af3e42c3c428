"""When a merge was told, and who gave an order its numbers."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("patient", sa.Column("merged_at", sa.DateTime(), nullable=True))
    for column in ("placer_order_issuer", "filler_order_issuer"):
        op.add_column("patient_order", sa.Column(column, sa.String(), nullable=False, server_default=""))


def downgrade() -> None:
    with op.batch_alter_table("patient") as batch:
        batch.drop_column("merged_at")
    with op.batch_alter_table("patient_order") as batch:
        batch.drop_column("placer_order_issuer")
        batch.drop_column("filler_order_issuer")
