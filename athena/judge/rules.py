"""All constants of judging, by rule version. A task names its version, so no constant changes under open work.

Version "1" is the network's. Version "demo-1" has budgets that fit a laptop, and constants calibrated to them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache

from athena.errors import NotFound

BLOCKS_PER_DAY = 7200


@dataclass(frozen=True)
class GateRules:
    """Thresholds of the gates; shares are of rows unless they say otherwise."""

    max_dataset_bytes: int = 2 << 30
    """Published size, checked before anything is downloaded."""
    max_table_bytes: int = 6 << 30
    """Decoded size in memory, checked by the reader's limits."""
    max_rows: int = 2_000_000
    max_text_bytes: int = 8 << 20
    """Of one row; no record inflates to more."""
    reader_seconds: int = 1800
    """Wall time and CPU time of the process that reads a miner's files."""
    reader_memory_bytes: int = 16 << 30

    provenance_rows: int = 64
    provenance_rows_on_suspicion: int = 256
    min_containment: float = 0.8
    """Share of a row's shingles that its page must hold in order. Of the 2,418 rows that fineweb-1, strict-1 and
    unfiltered-1 make of 1,150 real pages none stays below, and five below 0.9."""
    max_altered_share: float = 0.01
    """Of sampled rows: ten times the share of honest rows that stay below `min_containment`."""
    max_placeholder_share: float = 0.2
    """Of a row's words: placeholders match anything, so a text of placeholders would match any page."""

    max_incomplete_share: float = 0.05
    """Of the drawn records. MinHash links documents through others, which one WARC file cannot always show."""
    min_unique_share: float = 0.5
    """Tokens in documents that are no copies of earlier ones in the set."""
    max_copied_share: float = 0.5
    """Rows whose very text lies in one rival's earlier dataset of another task."""
    leaked_ngrams: int = 8
    """A row with as many distinct 13-grams of evaluation documents quotes at least 20 of their words in a row."""
    max_contaminated_share: float = 0.01
    max_private_share: float = 0.5
    """Rows with an e-mail or public IPv4 address that no placeholder replaced."""
    min_distinct_ngram_share: float = 0.2
    """Distinct word 5-grams by all word 5-grams of the set."""


@dataclass(frozen=True)
class ProxyRules:
    """The small model that every arm trains from scratch, its budget, and how it is measured."""

    vocab_size: int = 8192
    """The first tokens of the shared byte-level BPE; a prefix of a BPE's merges is a BPE."""
    hidden_size: int = 256
    num_layers: int = 6
    num_heads: int = 4
    length: int = 256
    """Tokens in a window, in training and in evaluation."""
    max_tokens: int = 2_000_000
    """B_max. An arm trains for B = min(canonical tokens of the WARC file, B_max), whatever its own size."""
    min_tokens: int = 100_000
    """A WARC file with fewer canonical tokens compares nothing; another of the shard is drawn."""
    batch_windows: int = 16
    learning_rate: float = 3e-3
    weight_decay: float = 0.1
    warmup_share: float = 0.05
    decay_share: float = 0.6
    """Linear decay to zero over the last part of the steps: mid-schedule readings carry three times the noise."""
    documents_per_domain: int = 64
    windows_per_document: int = 2
    miner_seeds: int = 3
    canonical_seeds: int = 6
    canary_seeds: int = 2
    arm_seconds: int = 7200
    """An arm that takes longer is this machine's fault."""


@dataclass(frozen=True)
class PayRules:
    """Constants of the pay formula, in bits per byte unless they say otherwise."""

    sigma_seed: float = 0.005
    """σ_B: standard deviation, over seeds, of an arm's mean over domains. Measured with a model of 1.3M parameters on
    1.2M tokens, annealed to zero (10 sets, 3 seeds); a larger one is less noisy, so this errs towards caution."""
    sigma_domain: float = 0.01
    """The same for one domain. An estimate until `scripts/calibrate_proxy.py --rules 1` ran on a whole crawl."""
    sigma_task: float = 0.002
    """τ_s: spread of one recipe's true effect over tasks. An estimate, as before."""
    prior: float = 0.005
    """p: spread of true effects over miners, which an observed mean is shrunk by."""
    clip: float = 0.03
    """A domain's difference counts up to this."""
    scale: float = 0.02
    """The effect that earns the whole bonus, or costs everything and more."""
    abandoned_effect: float = -0.01
    """What a task counts that was leased and failed, expired, or was never revealed."""
    bonus: float = 4.0
    malus: float = 8.0
    confidence: float = 1.645
    """Standard deviations of the one-sided 95 % bound."""
    half_life_blocks: int = 14 * BLOCKS_PER_DAY
    max_pause_blocks: int = 3 * 360
    """A verdict that a validator still owes stops the hotkey's decay for at most three epochs."""
    max_time_penalty: float = 0.1

    @property
    def memory_blocks(self) -> int:
        """An older task weighs less than half a step of the chain's 16-bit weights, and is not looked at any more."""
        return 17 * self.half_life_blocks


@dataclass(frozen=True)
class Rules:
    """Everything that a verdict depends on beside the data, the chain and the evaluation pack."""

    version: str
    canonical_recipe: str = "fineweb-1"
    raw_recipe: str = "unfiltered-1"
    """The canary that must rank below canonical: all visible text."""
    gates: GateRules = field(default_factory=GateRules)
    proxy: ProxyRules = field(default_factory=ProxyRules)
    pay: PayRules = field(default_factory=PayRules)


@lru_cache
def rules_of(version: str) -> Rules:
    """The rules that a task's `rule_version` names. Raises NotFound."""
    if version == "1":
        return Rules("1")
    if version == "demo-1":
        return _demo()
    raise NotFound(f"no rule version {version!r}", remedy="upgrade athena-network, or use 1 or demo-1")


def _demo() -> Rules:
    """Budgets of about three seconds an arm on one core, and pay in proportion to what so small a model shows.

    Measured by `scripts/calibrate_proxy.py` on six WARC files of local crawls (seeds 0, 1 and 2; 5 seeds an arm):
    σ_B 0.015, by domain 0.022; strict-1 against fineweb-1 between -0.044 and +0.002, so τ_s 0.015; unfiltered-1
    between -0.37 and -0.47, shuffled words -0.21. A model of 77,000 parameters is three times as noisy as version
    1's and sees differences ten times as large: under version 1's clip and prior, two tasks of unfiltered text would
    be shrunk to a tenth of 0.03 and paid like canonical work.
    """
    return Rules(
        "demo-1",
        gates=GateRules(
            max_dataset_bytes=64 << 20,
            max_table_bytes=256 << 20,
            max_rows=50_000,
            reader_seconds=120,
            reader_memory_bytes=4 << 30,
        ),
        proxy=ProxyRules(
            vocab_size=1024,
            hidden_size=48,
            num_layers=1,
            num_heads=2,
            length=128,
            max_tokens=80_000,
            min_tokens=4_000,
            batch_windows=8,
            learning_rate=1e-2,
            weight_decay=0.0,
            documents_per_domain=24,
            windows_per_document=1,
            miner_seeds=2,
            canonical_seeds=2,
            canary_seeds=1,
            arm_seconds=300,
        ),
        pay=PayRules(
            sigma_seed=0.015,
            sigma_domain=0.022,
            sigma_task=0.015,
            prior=0.1,
            clip=0.5,
            scale=0.5,
            abandoned_effect=-0.25,
        ),
    )
