"""Which version of the tables a database holds, and how it gets to the one that this code works with.

Alembic is imported only where there is something to migrate: on a database at HEAD the server starts without it.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import Connection, Engine, inspect, text
from sqlalchemy.exc import DBAPIError, OperationalError

from athena.errors import Misconfigured, Unavailable
from task_server.engines import writing

if TYPE_CHECKING:
    from alembic.config import Config

MIGRATIONS = Path(__file__).with_name("migrations")
HEAD = "0002"
"""The revision in MIGRATIONS that this code works with."""
_VERSIONS = "alembic_version"
_LOCK = int.from_bytes(b"ath1", "big")  # the key of the PostgreSQL lock that one migration at a time holds

log = logging.getLogger(__name__)
logging.getLogger("alembic").setLevel(logging.WARNING)  # or it tells at length which plugins it set up


def prepare(engine: Engine) -> None:
    """Gives an empty database its tables; several processes may do so at once.

    Raises Misconfigured for a database of another version, or of something else; Unavailable if it is out of reach.
    """
    with _reached(), engine.connect() as connection:
        revision = revision_of(connection)
    if revision is None:
        _upgrade(engine)
    elif revision != HEAD:
        raise _other_version(revision)


def migrate(engine: Engine) -> str | None:
    """Brings a database to HEAD; the revision that it was at, None if it was empty. Raises as `prepare` does."""
    with _reached(), engine.connect() as connection:
        revision = revision_of(connection)
    if revision not in (None, HEAD) and not _is_older(revision):
        raise _other_version(revision)
    if revision != HEAD:
        _upgrade(engine)
    return revision


def check(connection: Connection) -> None:
    """Raises Misconfigured unless the database is at HEAD."""
    revision = revision_of(connection)
    if revision is None:
        raise Misconfigured("the database is empty", remedy="give the ledger's with --database")
    if revision != HEAD:
        raise _other_version(revision)


def revision_of(connection: Connection) -> str | None:
    """The revision of the tables in a database, None if it is empty. Raises Misconfigured for tables without one."""
    tables = set(inspect(connection).get_table_names())
    revision: str | None = None
    if _VERSIONS in tables:
        revision = connection.execute(text(f"SELECT version_num FROM {_VERSIONS}")).scalar()
    if revision is None and tables - {_VERSIONS}:
        raise Misconfigured(
            "the database holds tables that are not the ledger's", remedy="give an empty one with --database"
        )
    return revision


def configuration(connection: Connection | None = None) -> Config:
    """Alembic's configuration, for `alembic.command` on this connection."""
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    config.attributes["connection"] = connection
    return config


def _upgrade(engine: Engine) -> None:
    """All in one transaction, and once where several processes ask for it: the others find it done."""
    from alembic import command

    with _reached(), writing(engine) as connection:
        if engine.dialect.name == "postgresql":
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK})
        command.upgrade(configuration(connection), "head")
    log.info("the database is at version %s of the tables now", HEAD)


def _is_older(revision: str) -> bool:
    from alembic.script import ScriptDirectory

    known = {script.revision for script in ScriptDirectory.from_config(configuration()).walk_revisions()}
    return revision in known - {HEAD}


def _other_version(revision: str) -> Misconfigured:
    if _is_older(revision):
        return Misconfigured(
            f"the database is at version {revision} of the tables, this server works with {HEAD}",
            remedy="stop all servers, make a backup, then run `athena server migrate`",
        )
    return Misconfigured(
        f"the database is at version {revision} of the tables, which this server does not know",
        remedy="install the release of Athena that it was last served by, or a later one",
    )


@contextmanager
def _reached() -> Iterator[None]:
    try:
        yield
    except OperationalError as error:
        raise Unavailable(f"the database is busy or out of reach: {_reason(error)}") from error
    except DBAPIError as error:
        raise Misconfigured(
            f"the database cannot hold the ledger: {_reason(error)}", remedy="give another with --database"
        ) from error


def _reason(error: DBAPIError) -> str:
    """The first line of what the driver says: of no password."""
    return str(error.orig).partition("\n")[0]
