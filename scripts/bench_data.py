"""Where the benchmarks find real pages, texts and labels, which are not part of this repository."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

DATA = Path(os.environ.get("ATHENA_TEST_DATA", Path(__file__).parents[2] / "shared" / "data"))


def add_data_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data", type=Path, default=DATA, help="folder of real pages and texts (ATHENA_TEST_DATA)")
