"""The HTTP API, /v1, put together: what every request passes on its way in, the routes, what every reply gets."""

from __future__ import annotations

from athena.chain.auth import ReplySigner
from task_server.edge import BodyLimit, add_problem_handlers
from task_server.identity import Gate
from task_server.journals import Journals
from task_server.ledger import Ledger
from task_server.limiting import Limits, RateLimit
from task_server.membership import Membership
from task_server.openapi import ABOUT, Api
from task_server.operators import Operators
from task_server.papers import Papers
from task_server.probes import LedgerCollector, Measure, Metrics, TimedStore, probe_routes
from task_server.reads import read_routes
from task_server.records import Records
from task_server.replies import Finish
from task_server.results import Results
from task_server.settings import TaskServerSettings
from task_server.standings import Standings
from task_server.store import Store
from task_server.transaction import Clock, utc_micros
from task_server.writes import member_routes, operator_routes


def create_app(
    settings: TaskServerSettings,
    store: Store,
    membership: Membership,
    signer: ReplySigner,
    clock: Clock = utc_micros,
) -> Api:
    """The service over a store. `signer` holds the server's own hotkey, for which clients sign their requests.

    Routes parse, call the ledger or the records, and reply; a transaction is over before its reply is rendered.
    """
    limits, metrics = Limits(settings.requests_per_minute, settings.writes_per_minute), Metrics()
    gate = Gate(signer.hotkey, membership, limits)
    timed = TimedStore(store, metrics)
    operators = Operators(timed, settings)
    records, results, standings = Records(store, clock), Results(store, clock), Standings(store, clock)
    metrics.registry.register(LedgerCollector(standings, membership))
    app = Api(
        title="Athena task server",
        version="1",
        description=ABOUT,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        generate_unique_id_function=lambda route: route.name,
    )
    add_problem_handlers(app)
    ledger, papers, journals = Ledger(timed, settings), Papers(timed, settings), Journals(timed, settings)
    app.include_router(member_routes(settings, ledger, papers, journals, membership, gate))
    app.include_router(operator_routes(operators, membership))
    app.include_router(read_routes(settings, records, results, standings, signer.hotkey))
    app.include_router(probe_routes(store, membership, metrics))
    # The last one added is the first that a request meets.
    app.add_middleware(BodyLimit, max_bytes=settings.max_body_bytes, seconds=settings.body_seconds)
    app.add_middleware(Finish, signer=signer)
    app.add_middleware(RateLimit, limits=limits)
    app.add_middleware(Measure, metrics=metrics)
    return app
