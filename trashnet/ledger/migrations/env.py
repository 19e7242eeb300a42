"""How Alembic runs our migrations: on the connection, and in the transaction, that the ledger hands it."""

from alembic import context

from trashnet.ledger.tables import metadata

context.configure(
    connection=context.config.attributes["connection"], target_metadata=metadata, render_as_batch=True
)
context.run_migrations()
