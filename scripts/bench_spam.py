"""Machine-made commercial web spam for the benchmarks: doorway pages, keyword lists, shop listings, link farms.

What the search engines' guidelines describe as spam: the same sales talk again and again, with other goods, places and
names put in, keyword lists, and the legal boilerplate around them. It is grammatical English for the most part, and
every page differs, so no filter for duplicates takes it out by itself. Nothing is copied from a real page.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator


def _each(listed: str) -> tuple[str, ...]:
    return tuple(listed.split("|"))


_GOODS = _each(
    "replica watches|diet pills|payday loans|car insurance|essay writing|garcinia extract|led headlights|phone cases|"
    "web hosting|seo services|online casino bonus|forex signals|wedding dresses|running shoes|handbags|sunglasses|"
    "teeth whitening kits|hair extensions|vacuum parts|toner cartridges|roof repair|pest control|carpet cleaning|"
    "locksmith services|bad credit mortgages|debt relief|male enhancement|weight loss tea|crypto wallets|vpn accounts|"
    "gift cards|hotel deals|cheap flights|pallet racking|garage doors|solar panels|hearing aids|mattress toppers|"
    "personal injury lawyers|truck tires|fishing reels|yoga pants|dog training collars|security cameras|water filters|"
    "laminate flooring|kitchen cabinets|drone batteries|gaming chairs|protein powder|cbd gummies|anti aging cream"
)
_PLACES = _each(
    "Springfield|Riverside|Franklin|Clinton|Greenville|Bristol|Fairview|Salem|Madison|Georgetown|Arlington|Ashland|"
    "Dover|Oxford|Jackson|Burlington|Manchester|Milton|Newport|Auburn|Centerville|Clayton|Dayton|Lexington|Milford|"
    "Mount Vernon|Oakland|Winchester|Cleveland|Hudson|Kingston|Lakewood|Marion|Monroe|Princeton|Troy|Westbrook"
)
_PRAISE = _each(
    "best|cheap|top rated|affordable|discount|high quality|genuine|trusted|premium|wholesale|low cost|fast|exclusive|"
    "certified|official|number one|amazing|guaranteed|brand new|professional"
)
_SHOPS = _each("Mega|Prime|Super|Best|Top|Quick|Smart|Royal|Value|Ultra|Global|Easy|Happy|Gold|Star|Max")
_KINDS = _each("Deals|Shop|Outlet|Store|Express|Market|Direct|Depot|World|Hub|Zone|Supply")
_PITCHES = (
    "Are you looking for {praise} {goods} in {place}? You have come to the right place.",
    "Buy {praise} {goods} online today and save up to {percent}% with free shipping to {place}.",
    "{shop} offers the {praise} {goods} at prices that nobody in {place} can beat.",
    "Our {goods} are {praise} and come with a {number} day money back guarantee.",
    "Thousands of happy customers in {place} and {other} already trust {shop} for {goods}.",
    "Do not wait! This offer on {praise} {goods} ends soon, so order your {goods} now.",
    "If you need {goods} near {place}, call {shop} now at 555-01{number} for a free quote.",
    "Click here to get {praise} {goods} with a coupon code for {percent}% off your first order.",
    "When it comes to {goods}, {shop} is the {praise} choice for people in {place}.",
    "We ship {praise} {goods} to {place}, {other} and everywhere else in {number} business days.",
    "Why pay more for {goods}? Compare {praise} {goods} prices and find the {praise} deal in {place}.",
    "Read our reviews of the {number} {praise} {goods} of the year before you buy {goods} in {place}.",
    "Get {goods}, {goods2} and {goods3} from one {praise} seller with no hidden fees.",
    "Sign up for our newsletter and never miss a sale on {praise} {goods} again.",
)
_COMMENTS = (
    "Great post! I also found {praise} {goods} at {shop}, check out my website for {goods}.",
    "I really like this blog, thanks for sharing. Visit {shop} for {praise} {goods} in {place}.",
    "Hello admin, very nice article. My brother told me about {goods} and {shop} was {praise}.",
    "Wow, this is what I was searching for! {praise} {goods} here: www.{domain}.example/{slug}",
)
_NOTICES = (
    "This website uses cookies to improve your experience. By continuing to browse you agree to our use of cookies.",
    "All trademarks are the property of their respective owners. {shop} is not affiliated with any brand of {goods}.",
    "As an affiliate we earn from qualifying purchases of {goods} at no extra cost to you.",
    "Copyright {shop} {place}. All rights reserved. Terms of Service. Privacy Policy. Contact Us. Sitemap.",
    "Results may vary. Statements about {goods} have not been evaluated. Offer not valid where prohibited by law.",
    "Login | Register | My Account | Wishlist | Cart (0) | Checkout | Track Order | Returns | FAQ | Support",
)


def spam(seed: str) -> Iterator[str]:
    """Pages of 60 to 600 words, without end; the same seed gives the same pages."""
    chance = random.Random(f"spam {seed}")
    kinds = (_doorway, _keywords, _listing, _links, _comments)
    while True:
        yield chance.choice(kinds)(chance)


def _filled(chance: random.Random, template: str, goods: str, place: str) -> str:
    shop = chance.choice(_SHOPS) + chance.choice(_KINDS)
    other = chance.choice(_GOODS)
    return template.format(
        goods=goods, goods2=other, goods3=chance.choice(_GOODS), place=place, other=chance.choice(_PLACES),
        praise=chance.choice(_PRAISE), shop=shop, domain=shop.lower(), slug=other.replace(" ", "-"),
        percent=chance.randrange(10, 90, 5), number=chance.randrange(10, 100),
    )  # fmt: skip


def _subject(chance: random.Random) -> tuple[str, str]:
    return chance.choice(_GOODS), chance.choice(_PLACES)


def _lines(chance: random.Random, templates: tuple[str, ...], at_least: int, at_most: int) -> list[str]:
    goods, place = _subject(chance)
    return [_filled(chance, chance.choice(templates), goods, place) for _ in range(chance.randint(at_least, at_most))]


def _doorway(chance: random.Random) -> str:
    """One good and one place, said over and over."""
    goods, place = _subject(chance)
    lines = [f"{chance.choice(_PRAISE).title()} {goods.title()} in {place}"]
    for _ in range(chance.randint(2, 6)):
        lines.append(" ".join(_filled(chance, t, goods, place) for t in chance.sample(_PITCHES, 4)))
    return "\n".join([*lines, *_lines(chance, _NOTICES, 1, 3)])


def _keywords(chance: random.Random) -> str:
    """A keyword list around a pitch."""
    goods, place = _subject(chance)
    wordings: tuple[Callable[[], str], ...] = (
        lambda: f"{chance.choice(_PRAISE)} {goods}",
        lambda: f"{goods} {chance.choice(_PLACES)}",
        lambda: f"buy {goods} online",
        lambda: f"{goods} {chance.choice(('price', 'review', 'coupon', 'sale', 'near me', 'for sale'))}",
        lambda: f"{chance.choice(_PRAISE)} {chance.choice(_GOODS)} {place}",
    )
    listed = ", ".join(chance.choice(wordings)() for _ in range(chance.randint(20, 80)))
    return "\n".join([_filled(chance, chance.choice(_PITCHES), goods, place), f"Tags: {listed}"])


def _listing(chance: random.Random) -> str:
    """A shop's page of articles with prices."""
    lines = []
    for _ in range(chance.randint(10, 30)):
        goods = f"{chance.choice(_PRAISE)} {chance.choice(_GOODS)}".title()
        price = chance.randrange(499, 29999) / 100
        lines.append(f"{goods} - Was ${price * 1.6:.2f} Now ${price:.2f} - Add to cart - Add to wishlist - Compare")
    return "\n".join([*lines, *_lines(chance, _NOTICES, 1, 4)])


def _links(chance: random.Random) -> str:
    """A link farm's page."""
    lines = [f"{chance.choice(_PRAISE)} {chance.choice(_GOODS)} {chance.choice(_PLACES)}" for _ in range(40)]
    return "\n".join(["Related searches", *lines[: chance.randint(15, 40)], *_lines(chance, _NOTICES, 1, 2)])


def _comments(chance: random.Random) -> str:
    """What comment fields fill up with."""
    return "\n".join(_lines(chance, _COMMENTS, 5, 20))
