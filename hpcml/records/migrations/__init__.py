"""How the schema of the records came to be: one revision after the other, by Alembic."""
