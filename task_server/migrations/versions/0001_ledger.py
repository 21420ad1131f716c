"""The ledger's tables."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision: str = "0001"
down_revision: str | None = None

TABLES = (
    "crawl",
    "shard",
    "warc",
    "task",
    "canary",
    "lease",
    "submission",
    "sheet",
    "release",
    "account",
    "nonce",
    "idempotency",
    "api_key",
    "opt_out",
    "event",
    "event_head",
)
"""In the order of what refers to what."""


def upgrade() -> None:
    _crawls()
    _tasks()
    _leases()
    _papers()
    _releases()
    _callers()
    _operators()
    _events()


def downgrade() -> None:
    for table in reversed(TABLES):
        op.drop_table(table)


def _partial(name: str, table: str, columns: list[str], where: str, unique: bool = False) -> None:
    op.create_index(name, table, columns, unique=unique, sqlite_where=sa.text(where), postgresql_where=sa.text(where))


def _crawls() -> None:
    op.create_table(
        "crawl",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("url", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("plan", sa.Text(), nullable=False),
        sa.Column("failure", sa.String(), nullable=True),
        sa.Column("failures", sa.Integer(), nullable=False),
        sa.Column("due_at", sa.BigInteger(), nullable=True),
        sa.Column("imported_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_table(
        "shard",
        sa.Column("sequence", sa.BigInteger(), nullable=False),
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("crawl", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("sequence"),
        sa.UniqueConstraint("id"),
        sa.ForeignKeyConstraint(["crawl"], ["crawl.id"]),
    )
    op.create_index("shard_of_crawl", "shard", ["crawl", "sequence"])
    op.create_table(
        "warc",
        sa.Column("shard", sa.BigInteger(), nullable=False),
        sa.Column("place", sa.Integer(), nullable=False),
        sa.Column("crawl", sa.String(), nullable=False),
        sa.Column("path", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("shard", "place"),
        sa.UniqueConstraint("crawl", "path"),
        sa.ForeignKeyConstraint(["crawl"], ["crawl.id"]),
        sa.ForeignKeyConstraint(["shard"], ["shard.sequence"]),
    )


def _tasks() -> None:
    op.create_table(
        "task",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("shard", sa.BigInteger(), nullable=False),
        sa.Column("rule_version", sa.String(), nullable=False),
        sa.Column("opened_block", sa.Integer(), nullable=False),
        sa.Column("copies", sa.Integer(), nullable=False),
        sa.Column("slots", sa.Integer(), nullable=False),
        sa.Column("closed", sa.Boolean(), nullable=False),
        sa.Column("audit_block", sa.Integer(), nullable=True),
        sa.Column("audited", sa.Boolean(), nullable=True),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("position"),
        sa.UniqueConstraint("shard", "rule_version"),
        sa.ForeignKeyConstraint(["shard"], ["shard.sequence"]),
        sa.CheckConstraint("slots >= 0"),
    )
    _partial("task_audit_due", "task", ["audit_block"], "audited IS NULL AND audit_block IS NOT NULL")
    _partial("task_filled", "task", ["position"], "slots = 0 OR closed")
    op.create_index("task_listed", "task", ["opened_block", "position"])
    _partial("task_open", "task", ["position"], "slots > 0 AND NOT closed")
    op.create_table(
        "canary",
        sa.Column("task_id", sa.String(), nullable=False),
        sa.Column("manifest", sa.Text(), nullable=False),
        sa.Column("set_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("task_id"),
        sa.ForeignKeyConstraint(["task_id"], ["task.id"]),
    )


def _leases() -> None:
    op.create_table(
        "lease",
        sa.Column("fencing", sa.Integer(), nullable=False),
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("task_id", sa.String(), nullable=False),
        sa.Column("hotkey", sa.String(), nullable=False),
        sa.Column("coldkey", sa.String(), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("audit", sa.Boolean(), nullable=False),
        sa.Column("draw_index", sa.Integer(), nullable=False),
        sa.Column("issued_at", sa.BigInteger(), nullable=False),
        sa.Column("heartbeat_at", sa.BigInteger(), nullable=False),
        sa.Column("expires_at", sa.BigInteger(), nullable=False),
        sa.Column("deadline_at", sa.BigInteger(), nullable=False),
        sa.Column("issued_block", sa.Integer(), nullable=False),
        sa.Column("deadline_block", sa.Integer(), nullable=False),
        sa.Column("progress", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("fencing"),
        sa.UniqueConstraint("id"),
        sa.UniqueConstraint("task_id", "coldkey"),
        sa.UniqueConstraint("task_id", "hotkey"),
        sa.ForeignKeyConstraint(["task_id"], ["task.id"]),
        sqlite_autoincrement=True,  # a fencing token is never used twice
    )
    _partial("lease_active", "lease", ["fencing"], "state = 'active'")
    _partial("lease_ended", "lease", ["state", "fencing"], "state <> 'active'")
    _partial("lease_expiring", "lease", ["expires_at"], "state = 'active'")
    op.create_index("lease_of_hotkey", "lease", ["hotkey", "fencing"])
    op.create_index("lease_of_hotkey_in_state", "lease", ["hotkey", "state", "fencing"])


def _papers() -> None:
    op.create_table(
        "submission",
        sa.Column("sequence", sa.Integer(), nullable=False),
        sa.Column("lease_id", sa.String(), nullable=False),
        sa.Column("task_id", sa.String(), nullable=False),
        sa.Column("hotkey", sa.String(), nullable=False),
        sa.Column("submitted_at", sa.BigInteger(), nullable=False),
        sa.Column("late", sa.Boolean(), nullable=False),
        sa.Column("accepted", sa.Boolean(), nullable=False),
        sa.Column("verdict", sa.String(), nullable=True),
        sa.Column("canary_passed", sa.Boolean(), nullable=True),
        sa.Column("records", sa.BigInteger(), nullable=False),
        sa.Column("rows", sa.BigInteger(), nullable=False),
        sa.Column("tokens", sa.BigInteger(), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("sequence"),
        sa.UniqueConstraint("lease_id"),
        sa.ForeignKeyConstraint(["lease_id"], ["lease.id"]),
        sa.ForeignKeyConstraint(["task_id"], ["task.id"]),
    )
    op.create_index(
        "submission_of_hotkey", "submission", ["hotkey", "sequence", "verdict", "records", "rows", "tokens"]
    )
    op.create_index("submission_of_task", "submission", ["task_id", "sequence"])
    op.create_table(
        "sheet",
        sa.Column("sequence", sa.Integer(), nullable=False),
        sa.Column("digest", sa.String(), nullable=False),
        sa.Column("task_id", sa.String(), nullable=False),
        sa.Column("hotkey", sa.String(), nullable=False),
        sa.Column("validator", sa.String(), nullable=False),
        sa.Column("stake", sa.Float(), nullable=False),
        sa.Column("outcome", sa.String(), nullable=False),
        sa.Column("units", sa.Float(), nullable=False),
        sa.Column("effect", sa.Float(), nullable=True),
        sa.Column("received_at", sa.BigInteger(), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("sequence"),
        sa.UniqueConstraint("digest"),
        sa.ForeignKeyConstraint(["task_id"], ["task.id"]),
    )
    op.create_index("sheet_of_hotkey", "sheet", ["hotkey", "sequence"])
    op.create_index("sheet_of_validator", "sheet", ["validator", "sequence"])
    op.create_index("sheet_of_validator_on_hotkey", "sheet", ["validator", "hotkey", "sequence"])
    op.create_index(
        "sheet_of_task", "sheet", ["task_id", "sequence", "hotkey", "validator", "outcome", "units", "effect"]
    )


def _releases() -> None:
    op.create_table(
        "release",
        sa.Column("sequence", sa.Integer(), nullable=False),
        sa.Column("digest", sa.String(), nullable=False),
        sa.Column("trainer", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("version", sa.String(), nullable=False),
        sa.Column("received_at", sa.BigInteger(), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("sequence"),
        sa.UniqueConstraint("digest"),
        sa.UniqueConstraint("trainer", "name", "version"),
    )


def _callers() -> None:
    op.create_table(
        "account",
        sa.Column("coldkey", sa.String(), nullable=False),
        sa.Column("quota", sa.Integer(), nullable=False),
        sa.Column("allowance", sa.Float(), nullable=False),
        sa.Column("refilled_at", sa.BigInteger(), nullable=False),
        sa.Column("streak", sa.Integer(), nullable=False),
        sa.Column("ban", sa.String(), nullable=True),
        sa.PrimaryKeyConstraint("coldkey"),
    )
    op.create_table(
        "nonce",
        sa.Column("hotkey", sa.String(), nullable=False),
        sa.Column("nonce_ns", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("hotkey", "nonce_ns"),
    )
    op.create_table(
        "idempotency",
        sa.Column("by", sa.String(), nullable=False),
        sa.Column("key", sa.String(), nullable=False),
        sa.Column("digest", sa.String(), nullable=False),
        sa.Column("reply", sa.Text(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("by", "key"),
    )
    op.create_index("ix_idempotency_created_at", "idempotency", ["created_at"])


def _operators() -> None:
    op.create_table(
        "api_key",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("sha256", sa.String(), nullable=False),
        sa.Column("scopes", sa.String(), nullable=False),
        sa.Column("note", sa.String(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("revoked_at", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_table(
        "opt_out",
        sa.Column("sequence", sa.Integer(), nullable=False),
        sa.Column("domain", sa.String(), nullable=False),
        sa.Column("reason", sa.String(), nullable=False),
        sa.Column("since_block", sa.Integer(), nullable=False),
        sa.Column("until_block", sa.Integer(), nullable=True),
        sa.Column("added_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("sequence"),
    )
    _partial("opt_out_listed", "opt_out", ["domain"], "until_block IS NULL", unique=True)


def _events() -> None:
    op.create_table(
        "event",
        sa.Column("sequence", sa.BigInteger(), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.Column("hash", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("sequence"),
    )
    op.create_table(
        "event_head",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("sequence", sa.BigInteger(), nullable=False),
        sa.Column("hash", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
