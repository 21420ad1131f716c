"""Accounts in the database: who is barred, and how many leases a coldkey may still take."""

from __future__ import annotations

from sqlalchemy import bindparam, select, update
from sqlmodel import col

from athena.errors import Forbidden
from task_server.books import AccountRow
from task_server.prepared import Prepared
from task_server.quota import Account
from task_server.transaction import Transaction

_HELD = Prepared(
    select(
        col(AccountRow.coldkey),
        col(AccountRow.quota),
        col(AccountRow.allowance),
        col(AccountRow.refilled_at),
        col(AccountRow.streak),
        col(AccountRow.ban),
    )
    .where(col(AccountRow.coldkey) == bindparam("of"))
    .with_for_update(key_share=True)
)
_BAN = select(col(AccountRow.ban)).where(col(AccountRow.coldkey) == bindparam("of"))
_SAVE = Prepared(
    update(AccountRow)
    .where(col(AccountRow.coldkey) == bindparam("of"))
    .values({name: bindparam(name) for name in ("quota", "allowance", "refilled_at", "streak", "ban")})
)


def locked(tx: Transaction, coldkey: str, initial_quota: int) -> Account:
    """The account of a coldkey, held until the transaction ends: one write at a time by, or about, one coldkey.

    A coldkey that has none is given one.
    """
    row = _HELD.first(tx.connection, of=coldkey)
    if row is None:
        fresh = Account.opened(coldkey, initial_quota, tx.now)
        tx.insert_new(AccountRow, **vars(fresh))
        row = _HELD.one(tx.connection, of=coldkey)
    return Account(*row).refilled(tx.now)


def callers(tx: Transaction, coldkey: str, initial_quota: int) -> Account:
    """As `locked`; raises Forbidden, with the reason, for a coldkey that is barred."""
    account = locked(tx, coldkey, initial_quota)
    _admit(account.ban)
    return account


def admit(tx: Transaction, coldkey: str) -> None:
    """Raises Forbidden for a coldkey that is barred. Holds no account: for a write about another's."""
    _admit(tx.connection.execute(_BAN, {"of": coldkey}).scalar())


def _admit(ban: str | None) -> None:
    if ban is not None:
        raise Forbidden(f"the coldkey is barred: {ban}", remedy="talk to the server's operator")


def save(tx: Transaction, account: Account) -> None:
    values = vars(account).copy()
    _SAVE.run(tx.connection, of=values.pop("coldkey"), **values)
