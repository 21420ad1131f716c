import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from athena.judge.gates.containment import containment, placeholder_share

PAGE = "Menu Home\n" + "\n".join(" ".join(f"w{line}x{i}" for i in range(30)) for line in range(40)) + "\nFooter text"
LINES = PAGE.split("\n")


def test_a_selection_of_lines_is_contained():
    assert containment("\n".join(LINES[1:-1:2]), PAGE) == 1.0


def test_markup_spacing_case_and_punctuation_do_not_matter():
    assert containment("The QUICK, brown fox — jumps over it.", "the quick   brown\nfox jumps (over) it") == 1.0


def test_order_matters_across_lines_and_within():
    swapped = LINES[20:40] + LINES[1:20]
    assert containment("\n".join(swapped), PAGE) == pytest.approx(20 / 39, abs=0.01)
    words = LINES[3].split()
    random.Random(0).shuffle(words)
    assert containment(" ".join(words), PAGE) < 0.1


def test_shingles_stay_within_a_line():
    """An extractor drops what lies between two lines; nothing spans the gap."""
    assert containment(f"{LINES[2]}\n{LINES[9]}", PAGE) == 1.0
    assert containment(f"{LINES[2]} {LINES[9]}", PAGE) < 1.0


def test_repetition_in_the_text_needs_repetition_in_the_page():
    assert containment("\n".join([LINES[5]] * 4), PAGE) == 0.25
    assert containment("\n".join([LINES[5]] * 4), "\n".join([LINES[5]] * 4)) == 1.0


def test_placeholders_match_anything_between_true_neighbours():
    page = "you may write to jane.roe@site.org on any day of the week or else call us at 10.20.30.40 right now please"
    text = page.replace("jane.roe@site.org", "email@example.com").replace("10.20.30.40", "22.214.171.124")
    assert containment(text, page) == 1.0
    assert placeholder_share(text) == pytest.approx(2 / 20)
    assert containment(text.replace("any day", "no night"), page) < 0.8


def test_text_without_words_is_not_contained():
    assert containment("", PAGE) == containment("... ---", PAGE) == 0.0
    assert containment("hello", "") == 0.0


def test_a_page_of_one_word_costs_bounded_work():
    page = "spam " * 50_000
    assert containment("spam " * 5_000, page) <= 1.0


@given(st.lists(st.sampled_from("abcdefgh"), max_size=60), st.lists(st.sampled_from("abcdefgh"), max_size=60))
def test_share_lies_between_0_and_1(text, page):
    assert 0.0 <= containment(" ".join(text), " ".join(page)) <= 1.0


@given(st.lists(st.text("abcde ", min_size=1, max_size=40), min_size=1, max_size=12))
def test_every_text_contains_itself(lines):
    text = "\n".join(lines)
    assert containment(text, text) in (0.0, 1.0)


def test_a_text_cut_out_of_its_page_is_in_it_however_often_the_page_repeats_itself():
    page = "start of page " + "one two three four five " * 20_000 + "end of page"
    assert containment(page, page) == 1.0
    assert containment("one two three four five " * 3_000, page) == 1.0
