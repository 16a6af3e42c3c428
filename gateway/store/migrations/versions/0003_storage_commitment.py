"""Storage commitment: what peers were asked, and what modalities ask of us."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("delivery", sa.Column("asked", sa.Integer(), nullable=False, server_default="0"))
    op.create_table(
        "commitment",
        sa.Column("id", sa.Integer(), primary_key=True),
        sa.Column("transaction_uid", sa.String(), nullable=False),
        sa.Column("delivery", sa.Integer(), sa.ForeignKey("delivery.id"), nullable=False),
        sa.Column("asked_at", sa.DateTime(), nullable=False),
        sa.Column("reported_at", sa.DateTime(), nullable=True),
        sa.Column("failure_reason", sa.String(), nullable=False),
        sa.UniqueConstraint("transaction_uid", "delivery"),
    )
    op.create_index("ix_commitment_delivery", "commitment", ["delivery"])
    op.create_table(
        "commitmentrequest",
        sa.Column("id", sa.Integer(), primary_key=True),
        sa.Column("ae_title", sa.String(), nullable=False),
        sa.Column("host", sa.String(), nullable=False),
        sa.Column("transaction_uid", sa.String(), nullable=False),
        sa.Column("references_json", sa.String(), nullable=False),
        sa.Column("asked_at", sa.DateTime(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("next_attempt_at", sa.DateTime(), nullable=False),
        sa.Column("waiting", sa.Boolean(), nullable=False),
        sa.Column("reason", sa.String(), nullable=False),
        sa.UniqueConstraint("ae_title", "transaction_uid"),
    )
    op.create_index("ix_commitmentrequest_waiting", "commitmentrequest", ["waiting"])


def downgrade() -> None:
    op.drop_table("commitmentrequest")
    op.drop_table("commitment")
    with op.batch_alter_table("delivery") as batch:
        batch.drop_column("asked")
