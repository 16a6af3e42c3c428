"""Accounts, the sessions of those who have logged in, and what waits for the audit repository."""

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None

_ROLE = sa.Enum("VIEWER", "REVIEWER", "ADMIN", name="accountrole", native_enum=False, length=16)
_ORIGIN = sa.Enum("ACCOUNT", "OIDC", "PROXY", "MACHINE", name="origin", native_enum=False, length=16)
_KINDS = ("START", "STOP", "VIEW", "DECIDE", "LOG_IN", "LOG_OUT", "ACCOUNT", "ALERT", "PATIENT", "QUERY")
_KIND = sa.Enum(*_KINDS, name="auditkind", native_enum=False, length=16)


def upgrade() -> None:
    op.create_table(
        "account",
        sa.Column("name", sa.String(), primary_key=True),
        sa.Column("full_name", sa.String(), nullable=False),
        sa.Column("role", _ROLE, nullable=False),
        sa.Column("password_hash", sa.String(), nullable=False),
        sa.Column("must_change", sa.Boolean(), nullable=False),
        sa.Column("disabled", sa.Boolean(), nullable=False),
        sa.Column("failures", sa.Integer(), nullable=False),
        sa.Column("locked_until", sa.DateTime(), nullable=True),
        sa.Column("created_at", sa.DateTime(), nullable=False),
    )
    op.create_table(
        "web_session",
        sa.Column("digest", sa.String(), primary_key=True),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("full_name", sa.String(), nullable=False),
        sa.Column("role", _ROLE, nullable=False),
        sa.Column("origin", _ORIGIN, nullable=False),
        sa.Column("opened_at", sa.DateTime(), nullable=False),
        sa.Column("seen_at", sa.DateTime(), nullable=False),
    )
    op.create_table(
        "audit_entry",
        sa.Column("id", sa.Integer(), primary_key=True),
        sa.Column("at", sa.DateTime(), nullable=False),
        sa.Column("kind", _KIND, nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("full_name", sa.String(), nullable=False),
        sa.Column("address", sa.String(), nullable=False),
        sa.Column("job_id", sa.String(), nullable=False),
        sa.Column("patient_id", sa.String(), nullable=False),
        sa.Column("issuer_of_patient_id", sa.String(), nullable=False),
        sa.Column("patient_name", sa.String(), nullable=False),
        sa.Column("detail", sa.String(), nullable=False),
        sa.Column("failed", sa.Boolean(), nullable=False),
    )
    op.create_table(
        "audit_position",
        sa.Column("id", sa.Integer(), primary_key=True),
        sa.Column("event", sa.Integer(), nullable=False),
    )
    op.create_index("ix_web_session_name", "web_session", ["name"])


def downgrade() -> None:
    op.drop_table("audit_position")
    op.drop_table("audit_entry")
    op.drop_index("ix_web_session_name", "web_session")
    op.drop_table("web_session")
    op.drop_table("account")
