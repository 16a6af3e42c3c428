"""The study that an order wants its result in."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("patient_order", sa.Column("study_instance_uid", sa.String(), nullable=False, server_default=""))


def downgrade() -> None:
    with op.batch_alter_table("patient_order") as batch:
        batch.drop_column("study_instance_uid")
