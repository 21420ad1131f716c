"""Run by alembic: the migrations on the connection that task_server.schema hands over.

By hand, to write the next migration: `alembic -x database=URL revision --autogenerate -m WHAT`.
"""

from __future__ import annotations

from alembic import context
from sqlalchemy import Connection
from sqlmodel import SQLModel

from task_server import books, tables  # noqa: F401  (they declare the tables)
from task_server.engines import open_engine


def migrate(connection: Connection) -> None:
    context.configure(connection, target_metadata=SQLModel.metadata)
    context.run_migrations()


given: Connection | None = context.config.attributes.get("connection")
if given is not None:
    migrate(given)
else:
    with open_engine(context.get_x_argument(as_dictionary=True)["database"]).begin() as connection:
        migrate(connection)
