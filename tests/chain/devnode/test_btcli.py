"""The unmodified btcli reads the dev chain."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import bittensor as bt


def btcli(node, *arguments: str) -> str:
    program = shutil.which("btcli", path=str(Path(sys.executable).parent))
    assert program is not None
    done = subprocess.run(
        [program, "-n", node.url, *arguments],
        env=os.environ | {"COLUMNS": "200", "NO_COLOR": "1"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_query_commitments(node, subtensor, registered):
    text = b"ath1|file:first/data|"
    call = bt.calls.Commitments.set_commitment(netuid=1, info={"fields": [{f"Raw{len(text)}": text}]})
    subtensor.submit_call(call, registered.miners[0], signer="hotkey").raise_for_failure()
    shown = btcli(node, "query", "commitments", "--netuid", "1")
    assert text.decode() in shown
    assert registered.miners[0].hotkey.ss58_address in shown


def test_show_the_subnet(node, registered):
    shown = btcli(node, "subnets", "show", "1")
    assert "3/256" in shown
