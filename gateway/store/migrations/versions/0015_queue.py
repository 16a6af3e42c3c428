"""Jobs are found by words, and know their file's name; a destination can be paused, and says how it fares."""

import json

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None

_AT_ONCE = 1000
_INDEXES = {
    "ix_job_state": ("job", ["status", "created_at", "id"]),
    "ix_job_source": ("job", ["source", "created_at", "id"]),
    "ix_job_updated_at": ("job", ["updated_at"]),
    "ix_page_waveform_sop_instance_uid": ("page", ["waveform_sop_instance_uid"]),
    "ix_delivery_identifier": ("delivery", ["identifier"]),
    "ix_delivery_state": ("delivery", ["status", "destination", "job_id"]),
}
_REPLACED = {"ix_job_status": ("job", ["status"]), "ix_delivery_status": ("delivery", ["status"])}


def upgrade() -> None:
    op.add_column("job", sa.Column("file_name", sa.String(), nullable=False, server_default=""))
    op.add_column("job", sa.Column("search_text", sa.String(), nullable=False, server_default=""))
    op.create_table(
        "destination_state",
        sa.Column("name", sa.String(), primary_key=True),
        sa.Column("paused_at", sa.DateTime(), nullable=True),
        sa.Column("paused_by", sa.String(), nullable=False),
        sa.Column("delivered_at", sa.DateTime(), nullable=True),
        sa.Column("failed_at", sa.DateTime(), nullable=True),
        sa.Column("error", sa.String(), nullable=False),
    )
    op.execute(
        "INSERT INTO destination_state (name, paused_by, delivered_at, error) "
        "SELECT destination, '', max(delivered_at), '' FROM delivery GROUP BY destination"
    )
    _fill_search_text()
    for name, (table, columns) in _INDEXES.items():
        op.create_index(name, table, columns)
    for name, (table, _columns) in _REPLACED.items():
        op.drop_index(name, table)


def _fill_search_text() -> None:
    connection = op.get_bind()
    job = sa.table("job", sa.column("id"), sa.column("context"), sa.column("search_text"))
    last = ""
    after = sa.select(job.c.id, job.c.context).order_by(job.c.id).limit(_AT_ONCE)
    while rows := connection.execute(after.where(job.c.id > last)).all():
        values = [{"job": job_id, "words": _words(job_id, json.loads(context))} for job_id, context in rows]
        statement = sa.update(job).where(job.c.id == sa.bindparam("job"))
        connection.execute(statement.values(search_text=sa.bindparam("words")), values)
        last = rows[-1][0]


def _words(job_id: str, context: dict[str, str]) -> str:
    """Return what `gateway.store.tables.search_text` returns for a job without a file's name."""
    names = ("patient_id", "patient_name", "accession_number", "study_instance_uid", "source_sop_instance_uid")
    return "\n".join([job_id, "", *(context.get(name, "") for name in names)]).replace("^", " ").lower()


def downgrade() -> None:
    for name, (table, columns) in _REPLACED.items():
        op.create_index(name, table, columns)
    for name, (table, _columns) in _INDEXES.items():
        op.drop_index(name, table)
    op.drop_table("destination_state")
    op.drop_column("job", "search_text")
    op.drop_column("job", "file_name")
