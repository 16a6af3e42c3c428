"""Patients, orders and messages told by HL7; jobs that wait for an identity; results that a person confirmed."""

import json

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

JOB = sa.table("job", *(sa.column(name) for name in ("id", "status", "study_context_json", "unmatched")))


def upgrade() -> None:
    op.create_table(
        "patient",
        sa.Column("id", sa.Integer(), primary_key=True),
        sa.Column("patient_id", sa.String(), nullable=False),
        sa.Column("issuer_of_patient_id", sa.String(), nullable=False),
        sa.Column("patient_name", sa.String(), nullable=False),
        sa.Column("patient_birth_date", sa.String(), nullable=False),
        sa.Column("patient_sex", sa.String(), nullable=False),
        sa.Column("merged_into", sa.Integer(), sa.ForeignKey("patient.id"), nullable=True),
        sa.Column("told_at", sa.DateTime(), nullable=False),
        sa.UniqueConstraint("patient_id", "issuer_of_patient_id"),
    )
    op.create_table(
        "patient_order",
        sa.Column("id", sa.Integer(), primary_key=True),
        sa.Column("patient", sa.Integer(), sa.ForeignKey("patient.id"), nullable=False),
        sa.Column("placer_order_number", sa.String(), nullable=False),
        sa.Column("filler_order_number", sa.String(), nullable=False),
        sa.Column("accession_number", sa.String(), nullable=False),
        sa.Column("description", sa.String(), nullable=False),
        sa.Column("referring_physician_name", sa.String(), nullable=False),
        sa.Column("cancelled", sa.Boolean(), nullable=False),
        sa.Column("told_at", sa.DateTime(), nullable=False),
    )
    for column in ("patient", "placer_order_number", "filler_order_number", "accession_number"):
        op.create_index(f"ix_patient_order_{column}", "patient_order", [column])
    op.create_table(
        "receivedmessage",
        sa.Column("id", sa.Integer(), primary_key=True),
        sa.Column("sending_application", sa.String(), nullable=False),
        sa.Column("sending_facility", sa.String(), nullable=False),
        sa.Column("control_id", sa.String(), nullable=False),
        sa.Column("digest", sa.String(), nullable=False),
        sa.Column("message_type", sa.String(), nullable=False),
        sa.Column("data", sa.LargeBinary(), nullable=False),
        sa.Column("answer", sa.LargeBinary(), nullable=False),
        sa.Column("received_at", sa.DateTime(), nullable=False),
        sa.UniqueConstraint("sending_application", "sending_facility", "control_id", "digest"),
    )
    op.create_index("ix_receivedmessage_received_at", "receivedmessage", ["received_at"])
    op.create_table(
        "mergenotice",
        sa.Column("id", sa.Integer(), primary_key=True),
        sa.Column("job_id", sa.String(), sa.ForeignKey("job.id"), nullable=False),
        sa.Column("prior_patient_id", sa.String(), nullable=False),
        sa.Column("prior_issuer", sa.String(), nullable=False),
        sa.Column("surviving_patient_id", sa.String(), nullable=False),
        sa.Column("surviving_issuer", sa.String(), nullable=False),
        sa.Column("created_at", sa.DateTime(), nullable=False),
        sa.Column("settled_by", sa.String(), nullable=False),
    )
    op.create_index("ix_mergenotice_job_id", "mergenotice", ["job_id"])
    op.add_column("job", sa.Column("unmatched", sa.Boolean(), nullable=False, server_default=sa.false()))
    op.add_column("job", sa.Column("revision", sa.Integer(), nullable=False, server_default="0"))
    op.add_column("job", sa.Column("confirmed_by", sa.String(), nullable=False, server_default=""))
    op.add_column("delivery", sa.Column("result_status", sa.String(), nullable=False, server_default=""))
    op.create_index("ix_job_unmatched", "job", ["unmatched"])
    connection = op.get_bind()
    waiting = sa.select(JOB.c.id, JOB.c.study_context_json).where(JOB.c.status == "NEEDS_REVIEW")
    for job in connection.execute(waiting).all():
        if not json.loads(job.study_context_json).get("patient_id"):
            connection.execute(sa.update(JOB).where(JOB.c.id == job.id).values(unmatched=True))


def downgrade() -> None:
    op.drop_index("ix_job_unmatched", "job")
    with op.batch_alter_table("delivery") as batch:
        batch.drop_column("result_status")
    with op.batch_alter_table("job") as batch:
        for column in ("unmatched", "revision", "confirmed_by"):
            batch.drop_column(column)
    for table in ("mergenotice", "receivedmessage", "patient_order", "patient"):
        op.drop_table(table)
