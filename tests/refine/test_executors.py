"""A cluster's run ends with the bytes of a run on one machine."""

import importlib.util
import os
import sys
from pathlib import Path

import pytest

from athena.errors import Misconfigured
from athena.events import EventLog
from athena.refine.assembly import Label
from athena.refine.executors import run_on_ray, submit_to_slurm
from athena.refine.manifest import Limits, load_dataset
from athena.refine.recipe import load_recipe
from athena.refine.run import Work, refine_sources
from athena.refine.sources.opening import open_sources

LABEL = Label("ab" * 16, "5" + "G" * 47, "1")
# Slurm's part, played by a shell: it runs every job of the array at once when it is submitted, on this machine.
SBATCH = """#!/bin/bash
echo "$@" >> {folder}/submitted
cp "${{@: -1}}" {folder}/script-$(wc -l < {folder}/submitted)
array=$(sed -n 's/^#SBATCH --array=0-\\([0-9]*\\).*/\\1/p' "${{@: -1}}")
for task in $(seq 0 $array); do
  SLURM_ARRAY_TASK_ID=$task SLURM_NODELIST=localhost bash "${{@: -1}}" >> {folder}/log 2>&1 || exit 1
done
echo "Submitted batch job $(wc -l < {folder}/submitted)"
"""
SRUN = '#!/bin/bash\nwhile [[ $1 == -* ]]; do [[ $1 == -n ]] && shift; shift; done\nexec "$@"\n'
SCONTROL = "#!/bin/bash\necho localhost\n"


@pytest.fixture
def work(site_crawl):
    return Work(load_recipe("unfiltered-1"), open_sources([str(site_crawl)]), workers=2)


def bytes_of(out):
    return {path.name: path.read_bytes() for path in out.iterdir()}


def cluster(folder, monkeypatch):
    for name, text in (("sbatch", SBATCH.format(folder=folder)), ("srun", SRUN), ("scontrol", SCONTROL)):
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")


def test_without_slurm_the_remedy_is_named(work, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(Misconfigured, match="login node"):
        submit_to_slurm(work, LABEL, tmp_path / "out", partition="cpu", time_limit="01:00:00")


def test_slurm_scripts_ask_for_what_was_given(work, tmp_path, monkeypatch):
    cluster(tmp_path, monkeypatch)
    (tmp_path / "sbatch").write_text((tmp_path / "sbatch").read_text().replace("seq 0 $array", "true"))
    job = submit_to_slurm(work, LABEL, tmp_path / "out", partition="cpu", time_limit="01:00:00")
    refining = (tmp_path / "out.jobs" / "refine" / "launch_script.slurm").read_text()
    assembling = (tmp_path / "out.jobs" / "assemble" / "launch_script.slurm").read_text()
    for script in (refining, assembling):
        assert "#SBATCH --partition=cpu\n" in script and "#SBATCH --time=01:00:00\n" in script
        assert "#SBATCH --mem-per-cpu=3G\n" in script
        assert f"export PATH={Path(sys.executable).parent}:$PATH\n" in script
    assert "#SBATCH --array=0-2%2\n" in refining
    assert f"launch_pickled_pipeline {tmp_path}/out.jobs/refine/executor.pik" in refining
    submitted = (tmp_path / "submitted").read_text().splitlines()
    assert [line for line in submitted if "--dependency=afterok:1" in line] == [submitted[int(job) - 1]]


@pytest.mark.full
def test_slurm_jobs_end_with_the_bytes_of_one_machine(work, tmp_path, monkeypatch):
    cluster(tmp_path, monkeypatch)
    refine_sources(work, LABEL, tmp_path / "local", events=EventLog(None))
    submit_to_slurm(work, LABEL, tmp_path / "out", partition="cpu", time_limit="01:00:00")
    assert bytes_of(tmp_path / "out") == bytes_of(tmp_path / "local"), (tmp_path / "log").read_text()
    assert not (tmp_path / "out.parts").exists()


@pytest.mark.full
@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="ray is not installed")
@pytest.mark.filterwarnings("ignore")  # ray's own
def test_ray_ends_with_the_bytes_of_one_machine(work, tmp_path):
    import ray

    refine_sources(work, LABEL, tmp_path / "local", events=EventLog(None))
    ray.init(num_cpus=2, include_dashboard=False, object_store_memory=100 << 20, log_to_driver=False)
    try:
        manifest = run_on_ray(work, LABEL, tmp_path / "out")
    finally:
        ray.shutdown()
    assert bytes_of(tmp_path / "out") == bytes_of(tmp_path / "local")
    assert load_dataset(tmp_path / "out", limits=Limits()).manifest == manifest
