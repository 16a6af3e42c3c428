"""Jobs are searched by columns; deliveries say what they carry.

Until now a job's context was searched as JSON, and a delivery's role, revision and finality stood in the name of its
artefact alone.  Names are read here for the last time.
"""

import json

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

SEARCHED = ("patient_id", "accession_number", "study_date")
JOB = sa.table("job", sa.column("id"), sa.column("context"), *(sa.column(name) for name in SEARCHED))
DELIVERY = sa.table(
    "delivery", *(sa.column(name) for name in ("id", "artefact", "destination", "role", "revision", "final"))
)


def upgrade() -> None:
    op.execute("ALTER TABLE job RENAME COLUMN study_context_json TO context")
    for column in SEARCHED:
        op.add_column("job", sa.Column(column, sa.String(), nullable=False, server_default=""))
        op.create_index(f"ix_job_{column}", "job", [column])
    op.add_column("delivery", sa.Column("role", sa.String(16), nullable=False, server_default="waveform"))
    op.add_column("delivery", sa.Column("revision", sa.Integer(), nullable=False, server_default="0"))
    op.add_column("delivery", sa.Column("final", sa.Boolean(), nullable=False, server_default=sa.false()))
    connection = op.get_bind()
    for job in connection.execute(sa.select(JOB.c.id, JOB.c.context)).all():
        context = json.loads(job.context)
        found = {name: context[name] for name in SEARCHED if context.get(name)}
        if found:
            connection.execute(sa.update(JOB).where(JOB.c.id == job.id).values(**found))
    for delivery in connection.execute(sa.select(DELIVERY.c.id, DELIVERY.c.artefact, DELIVERY.c.destination)).all():
        values = _read_name(delivery.artefact, delivery.destination)
        connection.execute(sa.update(DELIVERY).where(DELIVERY.c.id == delivery.id).values(**values))


def downgrade() -> None:
    for column in ("role", "revision", "final"):
        op.drop_column("delivery", column)
    for column in SEARCHED:
        op.drop_index(f"ix_job_{column}", "job")
        op.drop_column("job", column)
    op.execute("ALTER TABLE job RENAME COLUMN context TO study_context_json")


def _read_name(name: str, destination: str) -> dict[str, object]:
    """Return role, revision and finality of `page-N[.rR][.final].KIND.dcm`, `page-N.rR.rejection.DESTINATION.dcm` or
    `page-N.DESTINATION[.rR][.final].hl7`.
    """
    parts = name.split(".")[1:-1]
    if name.endswith(".hl7"):
        role, parts = "message", parts[1:]
    elif "rejection" in parts and parts[-1] == destination and len(parts) > 2:
        role, parts = "rejection", parts[:1]
    else:
        role, parts = parts[-1] if parts[-1] in ("report", "overlay") else "waveform", parts[:-1]
    numbers = [part[1:] for part in parts if part[:1] == "r" and part[1:].isdigit()]
    return {"role": role, "revision": int(numbers[0]) if numbers else 0, "final": "final" in parts}
