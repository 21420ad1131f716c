"""A run of the table as a process: a trunk or a branch with all its stages, or the training that a folder describes.

`python -m athena.train.runs_process --run FOLDER`, with as many processes below it as `--processes` says.

Exit codes are those of athena.errors: 75 says that the same command may succeed later, 65 that the run diverged.
"""

from __future__ import annotations

import argparse
import logging
import signal
import sys
from pathlib import Path

from athena.errors import AthenaError
from athena.evalpack import load_pack
from athena.events import EventLog
from athena.hub import open_hub
from athena.train.trunk import BRANCH, TRUNK, BranchInputs, TrunkInputs, read_noun

log = logging.getLogger("athena.train")
STOPPED = 128 + signal.SIGTERM


def carry_out(folder: Path, processes: int, events_file: Path | None) -> None:
    """All that the run in `folder` has still to do. Raises what TrunkRun, BranchRun and Launch.train raise."""
    from athena.train.runs import BranchRun, Launch, TrunkRun  # torch: seconds of import

    events, launch = EventLog(events_file), Launch(processes, events_file)
    if (folder / BRANCH).exists():
        trunk = Path(read_noun(folder / BRANCH, BranchInputs).trunk)
    elif (folder / TRUNK).exists():
        trunk = folder
    else:
        launch.train(folder, events)
        return
    inputs = read_noun(trunk / TRUNK, TrunkInputs)
    pack = load_pack(Path(inputs.eval_pack))
    if trunk == folder:
        TrunkRun(folder, open_hub(inputs.hub), pack, events, launch).run()
    else:
        BranchRun(folder, pack, events, launch).run()


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m athena.train.runs_process", description=__doc__)
    parser.add_argument("--run", type=Path, required=True, help="the run's folder")
    parser.add_argument("--processes", type=int, default=1, help="processes that train together, one for each device")
    parser.add_argument("--events", type=Path, help="file that takes one JSON line an event")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(STOPPED))
    logging.basicConfig(format="%(asctime)s %(levelname)-7s %(name)s: %(message)s", level=logging.INFO)
    try:
        carry_out(arguments.run.absolute(), arguments.processes, arguments.events)
    except AthenaError as error:
        log.error("%s: %s", error.code, error)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
