"""Gate 5: evaluation text, people's addresses, and pages of domains that opted out, in the set."""

from __future__ import annotations

import ipaddress
import re
from collections import Counter
from collections.abc import Iterable
from functools import lru_cache

from athena.evalpack import EvalPack
from athena.judge.evidence import Evidence
from athena.judge.verdicts import failed, passed
from athena.judge.words import overlap_ngrams
from athena.protocol import Verdict
from athena.refine.steps.anonymise import PLACEHOLDERS

GATE = "contamination"
_EMAIL = re.compile(r"[\w.+-]{1,64}@[\w-]{1,63}(?:\.[\w-]{1,63})+")
_IPV4 = re.compile(r"(?<![\d.])\d{1,3}(?:\.\d{1,3}){3}(?![\d.])")


def check(evidence: Evidence) -> Verdict:
    """Pages that had to be left out, share of rows that quote the evaluation pack, and of rows with unmasked addresses.

    No row may come from a domain that had opted out when the task was leased: its miner could know.

    Quotations happen on the honest web: the share may be as high as `max_contaminated_share`, or twice what canonical
    work on the drawn WARC file shows. Rows that quote are left out of the proxy's arms either way.
    """
    rules = evidence.rules.gates
    opted_out = [url for url in evidence.rows.urls() if evidence.left_out.covers(url)]
    if opted_out:
        return failed(GATE, "pages of domains that opted out", rows=len(opted_out), urls=opted_out[:3])
    leaked = held_out(evidence.pack)
    texts = list(evidence.rows.texts())
    share = _share(quotes(text, leaked, rules.leaked_ngrams) for text in texts)
    if share > rules.max_contaminated_share:
        expected = _share(quotes(text, leaked, rules.leaked_ngrams) for text in evidence.canonical.texts())
        if share > 2 * expected:
            return failed(GATE, "rows quote the evaluation pack", share=share, canonical_share=expected)
    private = _share(has_address(text) for text in texts)
    if private > rules.max_private_share:
        return failed(GATE, "e-mail or IP addresses are not masked", share=private)
    return passed(GATE, share=share, private_share=private)


@lru_cache(maxsize=2)
def held_out(pack: EvalPack) -> frozenset[int]:
    """13-grams of the evaluation documents, but for those that two documents share: licences, headers, idioms."""
    counts: Counter[int] = Counter()
    for document in pack.documents:
        counts.update(set(overlap_ngrams(document.text)))
    return frozenset(ngram for ngram, count in counts.items() if count == 1)


def quotes(text: str, leaked: frozenset[int], at_least: int) -> bool:
    """Whether a text holds `at_least` distinct 13-grams of the evaluation pack."""
    return len(leaked.intersection(overlap_ngrams(text))) >= at_least


def has_address(text: str) -> bool:
    """Whether a text holds an e-mail address or a public IPv4 address that is no placeholder."""
    for placeholder in PLACEHOLDERS:
        text = text.replace(placeholder, "")
    return _EMAIL.search(text) is not None or any(map(_is_public, _IPV4.findall(text)))


def _is_public(address: str) -> bool:
    try:
        return ipaddress.IPv4Address(address).is_global
    except ValueError:
        return False


def _share(flags: Iterable[bool]) -> float:
    values = list(flags)
    return sum(values) / len(values) if values else 0.0
