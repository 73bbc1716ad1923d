"""Energy; when phases began, and their time without that of phases within them."""

import sqlalchemy as sa
from alembic import op

revision = "r0002"
down_revision = "r0001"


def upgrade() -> None:
    op.create_table(
        "energies",
        sa.Column("run_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("joules", sa.Float(), nullable=True),
        sa.Column("uncertainty", sa.Float(), nullable=True),
        sa.Column("scope", sa.String(length=64), nullable=True),
        sa.Column("seconds", sa.Float(), nullable=True),
        sa.Column("covered", sa.Float(), nullable=False),
        sa.Column("exclusive", sa.Boolean(), nullable=True),
        sa.Column("why", sa.Text(), nullable=False),
        sa.Column("root", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["run_id"],
            ["runs.id"],
        ),
        sa.PrimaryKeyConstraint("run_id"),
    )
    for name in ("own", "began", "joules", "uncertainty", "covered"):
        op.add_column("phases", sa.Column(name, sa.Float(), nullable=True))
