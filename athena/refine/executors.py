"""A refinement on a cluster, by datatrove's Slurm and Ray executors: one task per source, then one that assembles.

All machines see the folder of the dataset under the same path. A task makes the parts of its source there with the
code that a run on one machine uses, so the bytes are the same, and a task that was killed goes on after its last chunk.
"""

from __future__ import annotations

import importlib.util
import shlex
import shutil
import sys
from pathlib import Path
from typing import Any

from datatrove.executor import RayPipelineExecutor, SlurmPipelineExecutor
from datatrove.pipeline.base import PipelineStep

from athena.errors import Misconfigured, Unavailable
from athena.events import EventLog
from athena.protocol import Manifest
from athena.refine.assembly import Label
from athena.refine.parts import Parts
from athena.refine.run import Finished, Work, finish_sources, refine_parts

_GB_PER_TASK = 3  # a worker under 1 GiB, the process that forks it, and the reader
_SILENT = EventLog(None)


class RefineSource(PipelineStep):  # type: ignore[misc]  # datatrove has no types
    """Makes the parts of the source that has this task's rank."""

    name = "refine"
    type = "athena"

    def __init__(self, work: Work, label: Label, out: Path) -> None:
        super().__init__()
        self.work, self.label, self.out = work, label, out

    def run(self, data: Any, rank: int = 0, world_size: int = 1) -> None:
        refine_parts(self.work, self.label, Parts.beside(self.out), [rank], events=_SILENT)


class Assemble(PipelineStep):  # type: ignore[misc]
    """Makes the dataset of all parts."""

    name = "assemble"
    type = "athena"

    def __init__(self, work: Work, label: Label, out: Path, finished: Finished | None = None) -> None:
        super().__init__()
        self.work, self.label, self.out, self.finished = work, label, out, finished

    def run(self, data: Any, rank: int = 0, world_size: int = 1) -> None:
        finish_sources(self.work, self.label, self.out, finished=self.finished)


def submit_to_slurm(
    work: Work,
    label: Label,
    out: Path,
    *,
    partition: str,
    time_limit: str,
    finished: Finished | None = None,
) -> str:
    """Submits an array of jobs, `work.workers` of them at a time, and the job that assembles; returns that one's id.

    Scripts and logs lie in `<out>.jobs`. Raises Misconfigured where there is no sbatch.
    """
    if shutil.which("sbatch") is None:
        raise Misconfigured("this machine has no sbatch", remedy="run this on a login node of the Slurm cluster")
    Parts.beside(out).open(work.identity(label))
    jobs = out.with_name(f"{out.name}.jobs")
    shared: dict[str, Any] = {
        "time": time_limit,
        "partition": partition,
        "mem_per_cpu_gb": _GB_PER_TASK,
        "env_command": f"export PATH={shlex.quote(str(Path(sys.executable).parent))}:$PATH",
        "skip_completed": False,  # the parts say what is done, and of what
        "mail_type": "NONE",
    }
    refining = SlurmPipelineExecutor(
        [RefineSource(_one_process(work), label, out)], tasks=len(work.sources), workers=work.workers,
        job_name="athena-refine", logging_dir=str(jobs / "refine"), **shared,
    )  # fmt: skip
    assembling = SlurmPipelineExecutor(
        [Assemble(work, label, out, finished)], tasks=1, depends=refining, job_name="athena-assemble",
        logging_dir=str(jobs / "assemble"), **shared,
    )  # fmt: skip
    assembling.run()
    return str(assembling.job_id)


def run_on_ray(work: Work, label: Label, out: Path, *, finished: Finished | None = None) -> Manifest:
    """Refines on the Ray cluster at RAY_ADDRESS, or on one that it starts here; assembles in this process.

    Raises Misconfigured where ray is not installed, and Unavailable if tasks failed: called again, it goes on.
    """
    if importlib.util.find_spec("ray") is None:
        raise Misconfigured("ray is not installed", remedy="pip install athena-network[ray]")
    import ray

    parts = Parts.beside(out)
    parts.open(work.identity(label))
    ray.init(ignore_reinit_error=True, log_to_driver=False)
    RayPipelineExecutor(
        [RefineSource(_one_process(work), label, out)], tasks=len(work.sources), workers=work.workers,
        mem_per_cpu_gb=_GB_PER_TASK, logging_dir=str(out.with_name(f"{out.name}.jobs") / "refine"),
        skip_completed=False,
    ).run()  # fmt: skip
    missing = [source.name for index, source in enumerate(work.sources) if not parts.of(index).done]
    if missing:
        raise Unavailable(
            f"{len(missing)} of {len(work.sources)} sources failed, {missing[0]} first",
            remedy=f"see {out.name}.jobs, and start again: it goes on",
        )
    return finish_sources(work, label, out, finished=finished)


def _one_process(work: Work) -> Work:
    """The work of one task: the cluster runs many."""
    return Work(work.recipe, work.sources, work.left_out, workers=1, fail_safe=work.fail_safe)
