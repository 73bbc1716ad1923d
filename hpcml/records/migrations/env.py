"""What Alembic runs: within the transaction of who calls it."""

from alembic import context

from hpcml.records.schema import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata)
context.run_migrations()
