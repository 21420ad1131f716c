"""A tiny fixed prose: enough for a crawl of some dozen pages, and the same for ever."""

import pytest

from athena.localnet.prose import Section

WORDS = (
    "river", "garden", "letter", "window", "market", "morning", "winter", "captain", "village", "island", "harbour",
    "forest", "meadow", "lantern", "bridge", "teacher", "engine", "mountain", "silver", "copper", "velvet", "thunder",
    "orchard", "kitchen", "journey", "compass", "stranger", "feather",
)  # fmt: skip


def paragraph(number):
    picked = [WORDS[(number * step + step) % len(WORDS)] for step in range(3, 15)]
    return (
        f"The {picked[0]} by the {picked[1]} was {number} days old when the {picked[2]} came back to it. Nobody had "
        f"told the {picked[3]} that a {picked[4]} could be of use, so the {picked[5]} and the {picked[6]} stayed "
        f"where they were. In the end it was the {picked[7]} that they have to thank, with a {picked[8]} for the "
        f"{picked[9]} and a {picked[10]} to go with the {picked[11]}."
    )


@pytest.fixture(scope="session")
def tiny_prose():
    return tuple(
        Section(f"package-{group}", f"chapter {chapter}", tuple(paragraph(i) for i in range(start, start + 10)))
        for group in range(3)
        for chapter in range(40)
        for start in [(group * 40 + chapter) * 10]
    )
