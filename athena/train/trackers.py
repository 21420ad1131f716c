"""Where else a run's metrics may be followed: trackio, Weights & Biases, MLflow, behind one small seam.

None is needed: a run's own metrics.jsonl is what Athena reads. A tracker's library is imported when it is asked for,
and watching never decides: what the library raises later is logged once, and that run goes on without it.
"""

from __future__ import annotations

import importlib
import logging
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal, Protocol

from athena.errors import BadInput, Misconfigured

log = logging.getLogger(__name__)

TrackerName = Literal["none", "trackio", "wandb", "mlflow"]


class Tracker(Protocol):
    """Takes the numbers of one run. Adapters must keep a run that is opened again under the same name."""

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """The values after a step; steps rise, but those that a kill undid come again."""

    def close(self) -> None:
        """Everything taken so far is handed over. Nothing is taken afterwards."""


class Untracked:
    """Keeps nothing."""

    def log(self, step: int, values: Mapping[str, float]) -> None:
        return

    def close(self) -> None:
        return


def open_tracker(name: str, *, project: str, run: str, config: Mapping[str, Any]) -> Tracker:
    """The tracker of that name for one run of a project; `config` is kept beside the run.

    Raises BadInput for a name that is none, Misconfigured where its package is not installed.
    """
    if name == "none":
        return Untracked()
    if name not in _ADAPTERS:
        raise BadInput(f"no tracker {name!r}", remedy=f"choose one of none, {', '.join(_ADAPTERS)}")
    try:
        library = importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise Misconfigured(f"{name} is not installed", remedy=f"pip install {name}, or train without it") from error
    return _Guarded(name, lambda: _ADAPTERS[name](library, project, run, config))


class _Trackio:
    def __init__(self, trackio: Any, project: str, run: str, config: Mapping[str, Any]) -> None:
        self._run = trackio.init(project=project, name=run, config=dict(config), resume="allow", embed=False)

    def log(self, step: int, values: Mapping[str, float]) -> None:
        self._run.log(dict(values), step=step)

    def close(self) -> None:
        self._run.finish()


class _Wandb:
    def __init__(self, wandb: Any, project: str, run: str, config: Mapping[str, Any]) -> None:
        self._run = wandb.init(project=project, id=run, name=run, config=dict(config), resume="allow")

    def log(self, step: int, values: Mapping[str, float]) -> None:
        self._run.log(dict(values), step=step)

    def close(self) -> None:
        self._run.finish()


class _Mlflow:
    def __init__(self, mlflow: Any, project: str, run: str, config: Mapping[str, Any]) -> None:
        self._mlflow = mlflow
        mlflow.set_experiment(project)
        known = mlflow.search_runs(filter_string=f"attributes.run_name = '{run}'", output_format="list")
        mlflow.start_run(run_id=known[0].info.run_id if known else None, run_name=run)
        if not known:
            mlflow.log_params(dict(config))

    def log(self, step: int, values: Mapping[str, float]) -> None:
        self._mlflow.log_metrics(dict(values), step=step)

    def close(self) -> None:
        self._mlflow.end_run()


_ADAPTERS: dict[str, Callable[[Any, str, str, Mapping[str, Any]], Tracker]] = {
    "trackio": _Trackio,
    "wandb": _Wandb,
    "mlflow": _Mlflow,
}


class _Guarded:
    """A tracker that is let go at its library's first error, which is not passed on."""

    def __init__(self, name: str, opened: Callable[[], Tracker]) -> None:
        self._name = name
        self._tracker: Tracker | None = None
        with self._guard():
            self._tracker = opened()

    def log(self, step: int, values: Mapping[str, float]) -> None:
        if self._tracker is not None:
            with self._guard():
                self._tracker.log(step, {name: value for name, value in values.items() if math.isfinite(value)})

    def close(self) -> None:
        if self._tracker is not None:
            with self._guard():
                self._tracker.close()
        self._tracker = None

    @contextmanager
    def _guard(self) -> Iterator[None]:
        try:
            yield
        except Exception:  # a stranger's library, often over a network, may raise anything
            log.warning("%s failed: this run goes on without it", self._name, exc_info=True)
            self._tracker = None
