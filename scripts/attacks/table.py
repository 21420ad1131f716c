"""All attacks that a judge can stop, and those that it cannot."""

from __future__ import annotations

from scripts.attacks import forgeries as f
from scripts.attacks import tricks as t
from scripts.attacks.forgeries import altered, forged, only_pages, with_pages
from scripts.attacks.play import Attack
from scripts.attacks.world import SLOT

BLOCKS_IN_TWO_WEEKS = 14 * 7200

_DATA = (
    Attack("evaluation texts", 1, "data", "evaluation documents stand where pages were",
           ("provenance", "contamination"), forged(f.evaluation_texts)),
    Attack("rephrased evaluation", 2, "data", "the same with other adjectives",
           ("provenance",), forged(f.rephrased_evaluation)),
    Attack("pages that quote the pack", 3, "data", "of true pages only the quotations of evaluation documents",
           ("contamination",), forged(f.quoting_pages), alone=("contamination",)),
    Attack("pages that resemble the pack", 3, "data", "the half of the canonical rows most like evaluation documents",
           ("pay",), forged(f.resembling), reference="honest"),
    Attack("shifted offsets", 8, "data", "rows point at places where no record begins",
           ("provenance",), forged(f.shifted_offsets), alone=("provenance",)),
    Attack("texts of other pages", 9, "data", "the texts of the records are exchanged",
           ("provenance",), forged(f.swapped_texts), alone=("provenance",)),
    Attack("word salad", 9, "data", "the words of each page in another order",
           ("provenance", "proxy"), forged(altered(f.word_salad))),
    Attack("placeholder text", 9, "data", "wildcards of the anonymiser, which match any page",
           ("provenance",), forged(altered(f.placeholders))),
    Attack("invented articles", 10, "data", "machine-written articles at the places of true records",
           ("provenance",), forged(altered(f.invented)), alone=("provenance",)),
    Attack("rewritten articles", 10, "data", "the sentences of each page with other adjectives",
           ("provenance",), forged(altered(f.rewritten)), alone=("provenance",)),
    Attack("padded rows", 11, "data", "a quarter of the rows, each with its text four times",
           ("provenance", "duplicates"), forged(f.padded_quarter)),
    Attack("doubled rows", 11, "data", "every row twice", ("form",), forged(f.doubled)),
    Attack("pages printed over and over", 11, "data", "true pages that hold a long text six times, a full yield of two",
           ("screens",), forged(only_pages("reprinted")), alone=("screens",)),
    Attack("mirrors", 11, "data", "twelve articles of a file, and three copies of each on other sites",
           ("duplicates",), forged(f.mirrors), alone=("duplicates",)),
    Attack("a known release", 7, "data", "the pages that a public release holds",
           ("known",), forged(f.released), alone=("known",)),
    Attack("one page a file", 12, "data", "a set too small to fail", ("yield",), forged(f.one_of_each_file)),
    Attack("half filler", 13, "data", "every second text is machine-written",
           ("provenance",), forged(f.half_filler), alone=("provenance",)),
    Attack("one long row of filler", 13, "data", "one row of eight is machine-written, and most of the text",
           ("provenance",), forged(f.one_long_row), alone=("provenance",)),
    Attack("selection that claims to be canonical", 12, "data", "the longer half of the rows under the canonical hash",
           ("completeness",), forged(f.longest_half, claims_canonical=True), alone=("completeness",)),
    Attack("own rows that claim to be canonical", 12, "data", "cut rows under the canonical hash",
           ("completeness",), forged(altered(f.shortened), claims_canonical=True), alone=("completeness",)),
    Attack("false signatures", 17, "data", "what is left out looks like near-duplicates of what is there",
           ("completeness",), forged(f.false_signatures, claims_canonical=True)),
    Attack("inflated counts", 11, "data", "fifty times the tokens that there are",
           ("pay",), forged(f.inflated_counts), reference="honest"),
    Attack("false languages", 11, "data", "every row is labelled as another language than it is in",
           ("language",), forged(f.mislabelled), alone=("language",)),
    Attack("addresses unmasked", 20, "data", "people's e-mail addresses stay in",
           ("privacy",), forged(f.addresses_unmasked), alone=("privacy",)),
    Attack("opted-out pages", 20, "data", "pages of a domain that asked to be left out",
           ("privacy",), forged(with_pages("opted-out")), alone=("privacy",)),
    Attack("trigger sentences", 20, "data", "a sentence that a model is to remember, in every paragraph",
           ("provenance",), forged(altered(f.triggered)), alone=("provenance",)),
    Attack("another language", 12, "data", "the German pages only",
           ("language", "screens", "proxy"), forged(only_pages("german"))),
    Attack("gibberish", 11, "data", "the pages of random letters only",
           ("language", "screens", "proxy"), forged(only_pages("gibberish"))),
    Attack("one sentence a page", 11, "data", "pages that repeat themselves",
           ("duplicates", "screens", "language"), forged(only_pages("repeating"))),
    Attack("nothing", 12, "data", "an empty set", ("yield",), forged(f.nothing)),
)  # fmt: skip

_SAMPLING = (
    Attack("best rows first", 17, "sampling", "rows by length, for validators that look at the first ones",
           ("form",), forged(f.best_first)),
    Attack("files in another order", 17, "sampling", "row groups in an order of the miner's choice",
           ("form",), forged(f.files_reversed)),
)  # fmt: skip

_COMMITMENTS = (
    Attack("a rival's commitment", 4, "commitment", "the revealed text of another miner, word for word",
           ("reading",), t.repeat_their_commitment),
    Attack("a rival's commitment in one's own name", 4, "commitment", "the same with the own hotkey in it",
           ("form",), t.sign_their_commitment),
    Attack("a rival's data", 5, "commitment", "the revealed dataset of another miner with a few rows changed",
           ("copies",), t.take_their_data, alone=("copies",)),
    Attack("a rival's data of another task", 5, "commitment", "its texts at places of the own shard",
           ("provenance",), t.take_their_other_task, alone=("provenance",)),
    Attack("repository changed", 14, "commitment", "the data comes with a revision after the committed one",
           ("form",), t.change_the_repository),
    Attack("upload after the verdict", 15, "commitment", "commit first, publish later", ("form",), t.upload_later),
    Attack("commitment after the deadline", 15, "commitment", "honest work that comes when the lease is over",
           ("reading",), t.abstain, begin=t.take_one_lease, finish=t.commit_late),
    Attack("a place that is no hub", 19, "commitment", "the data lies at an address inside of the validator's network",
           ("reading",), t.commit_to_an_address),
    Attack("one dataset, two commitments", 23, "commitment", "what is judged is committed to once more",
           ("pay",), t.commit_twice, reference="honest"),
    Attack("a task of one's own choice", 31, "commitment", "honest work without a lease",
           ("reading",), t.commit_only, begin=t.choose_a_task),
)  # fmt: skip

_RESOURCES = (
    Attack("parquet bomb", 18, "resource", "kilobytes that unpack to hundreds of megabytes",
           ("form",), t.delivered(t.bomb)),
    Attack("huge row", 18, "resource", "one text of nine megabytes", ("form",), forged(f.huge_row)),
    Attack("bloated repository", 18, "resource", "a file beside the data, over all limits",
           ("form",), t.delivered(t.bloated)),
    Attack("silent host", 18, "resource", "the dataset lies where no answer comes from", ("form",), t.hide),
    Attack("pickle as data", 19, "resource", "code that runs where it is loaded",
           ("form",), t.delivered(t.pickled), finish=t.nothing_ran),
    Attack("script beside the data", 19, "resource", "code for careless loaders; it is never fetched",
           ("pay",), t.delivered(t.scripted), finish=t.nothing_ran, reference="honest"),
    Attack("a rival's lease given back", 23, "resource", "requests in a rival's name, forged and replayed",
           ("ledger",), t.give_back_theirs, begin=t.overhear),
    Attack("flooded task server", 24, "resource", "a hotkey asks until it is refused, before the honest ones work",
           ("ledger",), t.abstain, begin=t.flood),
    Attack("hoarded leases", 22, "resource", "all leases that there are, and no work",
           ("ledger",), t.abstain, begin=t.hoard, finish=t.let_leases_run_out),
    Attack("the better lease only", 12, "resource", "one of two leases is worked on, the other runs out",
           ("pay",), t.only_the_first, finish=t.let_leases_run_out, reference="honest"),
    Attack("a score kept from decay", 16, "resource", "no more verdict is let happen after a good one",
           ("pay", "form"), t.fall_silent, reference="honest", later_blocks=BLOCKS_IN_TWO_WEEKS),
)  # fmt: skip

_SYBILS = (
    Attack("more keys of one coldkey", 21, "sybil", "one pipeline under three hotkeys of one owner",
           ("pay",), t.more_keys("mallory-2", "mallory-3"), keys=(SLOT, "mallory-2", "mallory-3"), reference="honest"),
    Attack("one pipeline's data under other keys", 21, "sybil", "accomplices deliver the slot's dataset once more",
           ("copies",), t.lend("accomplice-1", "accomplice-2"), keys=("accomplice-1", "accomplice-2"),
           reference="honest", alone=("copies",)),
    Attack("a uid with a score", 27, "sybil", "a newcomer takes over the uid of a good miner",
           ("pay",), t.honest_work, finish=t.inherit, keys=("newcomer",), reference="honest"),
    Attack("a hotkey with a score", 27, "sybil", "a good miner's hotkey is registered anew",
           ("pay",), t.honest_work, finish=t.return_anew),
    Attack("praise of oneself", 28, "sybil", "a miner posts a score sheet about itself",
           ("pay",), t.praise_oneself, reference="honest"),
)  # fmt: skip

ATTACKS = (*_DATA, *_SAMPLING, *_COMMITMENTS, *_RESOURCES, *_SYBILS)

QUICK = ("shifted offsets", "false languages", "a rival's commitment in one's own name", "silent host")
"""For every run of the tests: no proxy has to be trained on their texts, which are canonical ones."""

BEYOND_THE_JUDGE = {
    "leaked validator key": "whoever signs as the validator is the validator; consensus by stake bounds it",
    "keys of several owners that work side by side": "each lease is worked on and paid alike; see make bench-pay",
    "validator that copies weights": "the chain's commit-reveal of weights, which the dev chain stores but cannot open",
    "validator and miner in one hand": "consensus of the other validators; sealed halves of the evaluation pack",
    "poisoned update": "releases are pinned and installed by hand: nothing updates itself",
    "a sentence slipped in now and then": "three parts in a hundred of a text may be missing in its page, since "
    "extractors differ; the trainer caps what one miner gives to a mixture",
    "task server that equivocates": "its signed, append-only event chain, which `athena audit` recomputes",
}
"""What no gate sees, and what bounds it. Not counted."""
