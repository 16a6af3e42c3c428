"""Run the migrations on the connection that `gateway.store.Store` hands over, inside its transaction."""

from alembic import context
from sqlmodel import SQLModel

import gateway.store.tables  # noqa: F401 - registers the tables

context.configure(
    connection=context.config.attributes["connection"], target_metadata=SQLModel.metadata, render_as_batch=True
)
with context.begin_transaction():
    context.run_migrations()
