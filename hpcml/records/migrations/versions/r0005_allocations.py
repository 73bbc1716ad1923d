"""What the queue's accounting has of allocations; who measured an energy; what is awaited."""

import sqlalchemy as sa
from alembic import op

revision = "r0005"
down_revision = "r0004"


def upgrade() -> None:
    op.create_table(
        "allocations",
        sa.Column("run_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("number", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("source", sa.String(length=64), nullable=False),
        sa.Column("job", sa.Text(), nullable=False),
        sa.Column("runs", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("meaning", sa.String(length=16), nullable=False),
        sa.Column("exit_code", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("signal", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("submitted", sa.Float(), nullable=True),
        sa.Column("eligible", sa.Float(), nullable=True),
        sa.Column("started", sa.Float(), nullable=True),
        sa.Column("ended", sa.Float(), nullable=True),
        sa.Column("elapsed", sa.Float(), nullable=True),
        sa.Column("cpus", sa.Integer(), nullable=True),
        sa.Column("nodes", sa.Integer(), nullable=True),
        sa.Column("devices", sa.Integer(), nullable=True),
        sa.Column("hosts", sa.Text(), nullable=False),
        sa.Column("max_rss", sa.BigInteger(), nullable=True),
        sa.Column("joules", sa.Float(), nullable=True),
        sa.Column("covered", sa.Float(), nullable=False),
        sa.Column("alone", sa.Boolean(), nullable=True),
        sa.ForeignKeyConstraint(
            ["run_id"],
            ["runs.id"],
        ),
        sa.PrimaryKeyConstraint("run_id", "number"),
        sqlite_with_rowid=False,
    )
    op.add_column("runs", sa.Column("awaited", sa.Text(), nullable=True))
    op.add_column("attempts", sa.Column("life", sa.Integer(), nullable=True))
    op.add_column("energies", sa.Column("source", sa.String(length=64), nullable=True))
