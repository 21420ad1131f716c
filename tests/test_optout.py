"""Who asked to be left out, and from when on."""

import pytest

from athena.optout import NOTHING_LEFT_OUT, LeftOut, left_out
from athena.wire import OptOut


@pytest.mark.parametrize(
    "url, covered",
    [
        ("https://example.com/a", True),
        ("http://EXAMPLE.com:8080/", True),
        ("https://www.example.com/", True),
        ("https://example.com./", True),
        ("https://user:pw@a.b.example.com/?q=1#f", True),
        ("https://notexample.com/", False),
        ("https://example.com.evil.org/", False),
        ("https://example.org/example.com", False),
        ("http://[::1/", False),
        ("", False),
        ("example.com", False),
    ],
)
def test_a_domain_covers_itself_and_what_lies_below_it(url, covered):
    assert LeftOut(frozenset({"example.com"})).covers(url) == covered
    assert not NOTHING_LEFT_OUT.covers(url)


def test_entries_bind_from_their_block_until_they_are_withdrawn():
    entries = [
        OptOut(domain="a.org", reason="", since_block=10),
        OptOut(domain="b.org", reason="", since_block=5, until_block=10),
        OptOut(domain="b.org", reason="", since_block=20),
    ]
    at = {block: left_out(entries, block).domains for block in (4, 5, 9, 10, 19, 20)}
    assert at == {4: set(), 5: {"b.org"}, 9: {"b.org"}, 10: {"a.org"}, 19: {"a.org"}, 20: {"a.org", "b.org"}}
