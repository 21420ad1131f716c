"""A node takes its place in the subnet, or says what keeps it out."""

from contextlib import closing
from pathlib import Path

import pytest

from athena.chain.wallets import hotkey_of
from athena.errors import Misconfigured
from athena.node import join_subnet
from athena.settings import MinerSettings


def test_a_node_joins_once_its_hotkey_is_registered(node, wallet_of):
    wallet = wallet_of("bob")
    settings = MinerSettings(network=node.address, wallet="bob", wallet_path=Path(wallet.path), hub="file:///hub")
    with pytest.raises(Misconfigured, match="--pay-burn"):
        join_subnet(settings)
    for pay_burn in (True, False):
        member = join_subnet(settings.model_copy(update={"pay_burn": pay_burn}))
        with closing(member.chain), closing(member.ledger):
            assert member.hotkey == hotkey_of(wallet)
            assert member.hotkey in {neuron.hotkey for neuron in member.chain.neurons()}
