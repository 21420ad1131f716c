"""All constants of judging, by rule version. A task names its version, so no constant changes under open work.

Version "1" is the network's. Version "demo-1" has budgets that fit a laptop, and constants calibrated to them.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import lru_cache

from athena.errors import NotFound

BLOCKS_PER_DAY = 7200

TOLERANCE_BITS_PER_BYTE = 0.001
"""How far one arm's bits per byte of a domain may differ between machines: a fifth of σ_B. On one instruction set and
one thread a rerun is bit-equal; others round sums in another order, and AVX-512 and AVX2 came out within 0.000001 of
each other after 40 to 625 steps."""


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
    max_outside_share: float = 0.03
    """Of the text of all sampled rows, in shingles. Of 64 rows that the five public recipes for English make of real
    pages it is at most 0.008, in 5,000 draws for each; on average 0.002 for union-1, and less for the others."""
    max_placeholder_share: float = 0.2
    """Of a row's words: placeholders match anything, so a text of placeholders would match any page."""

    max_incomplete_share: float = 0.05
    """Of the drawn records. MinHash links documents through others, which one WARC file cannot always show."""
    min_unique_share: float = 0.5
    """Words in documents that are no copies of earlier ones in the set."""
    public_recipes: tuple[str, ...] = ("strict-1", "resiliparse-1", "union-1")
    """Beside the canonical one: honest miners may agree in all that these keep and drop."""
    compared_rows: int = 256
    """Records drawn to hold a set against an earlier one."""
    min_departing_rows: int = 5
    min_departing_share: float = 0.05
    """Of them. A set that departs less from public work, for example by newer libraries, is worth no more than that."""
    max_copied_texts: float = 0.25
    """Of drawn texts that no public extractor makes: those of an earlier set. Between recipes with four such extractors
    on 120 real pages the share is at most 0.03; of copies with a line of each text left out, 0.3 to 0.6."""
    max_copied_decisions: float = 0.85
    """Cohen's kappa. Between 18 recipes on these pages at most 0.80, where two extractors share a private filter, and
    0.52 where one filter has two thresholds; of copies with a tenth of the rows left out, 0.91 and more."""
    max_known_share: float = 0.5
    """Rows that one known public release holds."""
    known_rows: int = 1000
    """Looked up in each known release: their share is then known within 3 %."""
    leaked_ngrams: int = 8
    """A row with as many distinct 13-grams of evaluation documents quotes at least 20 of their words in a row."""
    max_contaminated_share: float = 0.01
    content_rows: int = 512
    """Drawn for privacy and language: a fault in one row of a hundred shows with 99 %."""
    max_private_share: float = 0.5
    """Rows with an address, a number or a key that no placeholder replaced: 0.2 of unfiltered-1's, and none of 94 that
    fineweb-1 makes of the same pages."""
    languages: tuple[str, ...] = ("en",)
    """ISO 639-1 codes of what the network refines."""
    min_language_score: float = 0.5
    """fastText's, of one of `languages`, from which on a row is in them."""
    max_foreign_share: float = 0.8
    """Of text. More than half of a crawl is in other languages than English: unfiltered text passes, and is priced."""
    language_score_tolerance: float = 0.25
    """Recipes label a text before they take lines out of it, which moves 99 of 100 scores by no more than 0.01."""
    max_false_label_share: float = 0.05
    min_compression_ratio: float = 0.1
    """zlib's, of rows of 1,000 bytes or more: 0.29 to 0.65 for 1,308 rows of fineweb-1, 0.18 to 0.68 for raw text, 0.08
    to 0.66 for what fineweb-1 rejects. A repeated phrase has less than 0.03, base64 and random characters 0.75."""
    max_compression_ratio: float = 0.7
    min_any_language_score: float = 0.2
    """fastText's of the likeliest language, for the same rows: at least 0.30 for raw text of real pages. Random
    letters, digits, hexadecimal and base64 have 0.15 at most."""
    max_noise_share: float = 0.25
    """Of text: room for short pages in scripts of three bytes a character, which zlib shrinks less."""
    min_distinct_ngram_share: float = 0.2
    """Distinct word 5-grams by all word 5-grams of the set."""
    screen_chars: int = 1 << 20
    """Of the miner's and of canonical text each, that the screens compare."""
    min_screen_chars: int = 40_000
    """Below, a difference says too little."""
    max_excess_divergence: float = 0.5
    """Bits, over canonical's. Of 40,000 characters and more, disjoint canonical samples differ by 0.03, the public
    recipes and what fineweb-1 rejects by 0.1 at most; 60 % of one advertisement adds 0.6 to 1.1, German 0.6 to 0.8,
    gibberish 1.5 to 2.1."""
    max_excess_ngram_bits: float = 0.3
    """Bits per byte, over canonical's. Likewise 0.05, and 0.1 at most; of a megabyte, lower-cased text has 0.28, words
    in random order 0.33; of 400,000 characters, a tenth of the texts ten times each 0.58, gibberish 2.1."""


@dataclass(frozen=True)
class ProxyRules:
    """The small model that every arm trains from scratch, its budget, and how it is measured.

    Version "1": 360,000 parameters and half a minute of processor time an arm, in float32 without AMX. On the five
    draws of `bench_judge.py` a text lost by 10 % spam 0.02 to 0.05 bits per byte, by 30 % spam 0.06 to 0.09, by 60 %
    0.18 to 0.21, raw 0.04 to 0.09, by sentences from anywhere 0.07 to 0.09, by shuffled words 0.22 to 0.23, as a tenth
    repeated 0.28 to 0.33, by made-up words 0.36 to 0.38. With half the vocabulary shuffled words and made-up ones cost
    less than 60 % spam; with eight windows a step, shuffled words hardly more.
    """

    vocab_size: int = 4096
    """The first tokens of the shared byte-level BPE; a prefix of a BPE's merges is a BPE."""
    hidden_size: int = 64
    num_layers: int = 2
    num_heads: int = 2
    length: int = 256
    """Tokens in a window, in training and in evaluation."""
    max_tokens: int = 400_000
    """B_max. An arm trains for B = min(canonical tokens of the WARC file, B_max), whatever its own size, ..."""
    max_epochs: int = 4
    """... but reads no text more often than this, its copies counted: a small model would forget what it learnt, and
    repeating text up to four times costs a large one next to nothing (Muennighoff et al. 2023)."""
    min_tokens: int = 100_000
    """What a run from scratch needs. Of a WARC file with fewer canonical tokens another of the shard is drawn."""
    batch_windows: int = 4
    learning_rate: float = 1e-2
    weight_decay: float = 0.1
    warmup_share: float = 0.05
    decay_share: float = 0.6
    """Linear decay to zero over the last part of the steps: mid-schedule readings carry three times the noise."""
    documents_per_domain: int = 32
    windows_per_document: int = 1
    opening_tokens: int = 64
    """A document's first ones, at most half of what is read of it, are not measured. There a small model cannot know
    yet what kind of text it reads, and expects what it was trained on most: what half of a set is says little of what
    the other half taught."""
    cloze_per_domain: int = 16
    """Cloze items of each domain that has some."""
    miner_seeds: int = 3
    canonical_seeds: int = 6
    canary_seeds: int = 2
    arm_seconds: int = 7200
    """An arm that takes longer is this machine's fault."""
    low_learning_rate: float = 0.3
    """The second protocol's, as a share of `learning_rate`. Text in drawn order of sentences shows a third of its
    difference at 0.3 and a fifteenth at 0.1, found in runs of some fifty steps."""
    low_budget_share: float = 0.5
    """The second protocol's tokens, as a share of the others'."""
    base_sha256: str = ""
    """The checkpoint, a safetensors file, that arms go on from where no WARC file of the shard has `min_tokens`. Empty:
    there is none, and such files compare nothing."""
    base_min_tokens: int = 20_000
    base_learning_rate: float = 0.3
    """What an arm from the base starts with, as a share of `learning_rate`."""

    @property
    def least_tokens(self) -> int:
        """Canonical tokens that a WARC file must have to compare anything."""
        return self.base_min_tokens if self.base_sha256 else self.min_tokens

    @property
    def low(self) -> ProxyRules:
        """For arms of the second protocol: a tiny learning rate keeps orders better (arXiv 2512.24503)."""
        return replace(self, learning_rate=self.learning_rate * self.low_learning_rate)

    @property
    def annealing(self) -> ProxyRules:
        """For arms from the base checkpoint: no warmup, and decay from the first step."""
        rate = self.learning_rate * self.base_learning_rate
        return replace(self, learning_rate=rate, warmup_share=0.0, decay_share=1.0)


@dataclass(frozen=True)
class PayRules:
    """Constants of the pay formula, in bits per byte unless they say otherwise."""

    sigma_seed: float = 0.0075
    """σ_B: standard deviation, over seeds, of an arm's mean over domains. Found 0.0070 in the five draws of
    `bench_judge.py`, texts without any sense left out: 85 degrees of freedom, so 0.006 to 0.008."""
    sigma_domain: float = 0.013
    """The same for one domain, root mean square over domains, found with the same arms."""
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
    harm_level: float = 0.05
    """How often harmless data may lose its bonus for a domain that looks worse, over all domains together."""
    bootstrap_draws: int = 1000
    """Resamples of the evaluation documents; their spread is then known to one part in 45."""
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

    Measured by `athena judge calibrate` on six WARC files of local crawls (seeds 0, 1 and 2; 5 seeds an arm):
    σ_B 0.015, by domain 0.022; strict-1 against fineweb-1 between -0.044 and +0.002, so τ_s 0.015; unfiltered-1
    between -0.37 and -0.47, shuffled words -0.21. A model of 77,000 parameters is three times as noisy as version
    1's and sees differences ten times as large: under version 1's clip and prior, two tasks of unfiltered text would
    be shrunk to a tenth of 0.03 and paid like canonical work.

    A quarter to a third of the unfiltered text of a local crawl is made-up noise, and the proxies are to show what that
    is worth: its divergence is up to 1.0 bits and its bits per byte up to 0.5 over canonical's. The gates let twice
    that pass.
    """
    return Rules(
        "demo-1",
        gates=GateRules(
            max_dataset_bytes=64 << 20,
            max_table_bytes=256 << 20,
            max_rows=50_000,
            reader_seconds=120,
            reader_memory_bytes=4 << 30,
            max_noise_share=0.5,
            max_excess_divergence=2.0,
            max_excess_ngram_bits=1.0,
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
            opening_tokens=0,
            cloze_per_domain=24,
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
