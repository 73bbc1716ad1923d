"""Which runs have been copied to which other store."""

import sqlalchemy as sa
from alembic import op

revision = "r0004"
down_revision = "r0003"


def upgrade() -> None:
    op.create_table(
        "mirrored",
        sa.Column("store", sa.String(length=64), nullable=False),
        sa.Column("run_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("mirror", sa.String(length=256), nullable=False),
        sa.ForeignKeyConstraint(
            ["run_id"],
            ["runs.id"],
        ),
        sa.PrimaryKeyConstraint("store", "run_id"),
        sqlite_with_rowid=False,
    )
