"""The made-up web of the local crawl: hosts, each with one of five layouts and the clutter of real sites around a text.

Hosts end in .example (RFC 2606), so no page can be taken for somebody's.
"""

from __future__ import annotations

import html
import re
from collections.abc import Sequence
from dataclasses import dataclass
from string import Template

from athena.localnet.dice import Dice
from athena.localnet.layouts import LAYOUTS, SCRIPT, STYLE

_SECTIONS = ("guides", "news", "library", "reference", "archive", "community", "learn", "articles")
_NAMES = (
    "Anna Keller",
    "Tomás Ruiz",
    "Mei Lin",
    "Jonas Weber",
    "Priya Nair",
    "Sam Okafor",
    "Léa Martin",
    "Igor Petrov",
)
_REMARKS = (
    "Thanks, this cleared things up for me.", "Great post!! keep it up", "Does anyone know if this still works?",
    "First!", "I get an error on step two, any ideas?", "Bookmarked for later.", "+1", "same here",
    "Could you write about the other options too?", "Typo in the third paragraph.", "Subscribed :)",
)  # fmt: skip
_ADS = (
    "Sponsored: host your site with us from 2.99 a month", "Ad: ten tools that every team needs this year",
    "Advertisement — save 40% today only", "Partner offer: free shipping on all orders", "Download our free e-book",
)  # fmt: skip
_NAV = (
    "Home", "About", "Products", "Pricing", "Blog", "Docs", "Support", "Careers", "Press", "Contact", "Sign in",
    "Register", "Search", "Topics", "Events", "Newsletter", "Partners", "Status", "Shop", "Help",
)  # fmt: skip
_FOOTER = (
    "Terms of use", "Privacy policy", "Cookie settings", "Imprint", "Accessibility", "Sitemap", "RSS", "Advertise",
    "Report abuse", "Do not sell my data",
)  # fmt: skip


@dataclass(frozen=True)
class Site:
    host: str
    name: str
    layout: str


@dataclass(frozen=True)
class Link:
    """A page as other pages refer to it."""

    url: str
    title: str


SHARED_SITES = (
    Site("www.dailyengineer.example", "The Daily Engineer", "news"),
    Site("blog.fieldnotes.example", "Field Notes", "blog"),
    Site("wiki.openreference.example", "OpenReference", "wiki"),
    Site("forum.askwell.example", "AskWell", "forum"),
    Site("www.methodsandmodels.example", "Methods & Models", "blog"),
    Site("magazine.numbersense.example", "Number Sense", "news"),
)


def site_of(package: str, dice: Dice) -> Site:
    """Where an article about `package` appears: the package's own documentation, or one of the shared sites."""
    if dice.chance(50):
        return dice.choice(SHARED_SITES)
    name = re.sub(r"[^a-z0-9]+", "-", package.lower())
    return Site(f"docs.{name}.example", f"{package} documentation", "docs")


def address(site: Site, title: str, number: int, dice: Dice) -> str:
    """A URL for a page; `number` makes it the only one."""
    slug = re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")[:60]
    return f"http://{site.host}/{dice.choice(_SECTIONS)}/{slug}-{number}.html"


def paragraphs_html(paragraphs: Sequence[str], dice: Dice) -> str:
    """One <p> per paragraph; now and then a few words are set in italics or linked."""
    lines = []
    for paragraph in paragraphs:
        words = [html.escape(word, quote=False) for word in paragraph.split(" ")]
        if len(words) > 20 and dice.chance(25):
            at = dice.between(3, len(words) - 6)
            marked = " ".join(words[at : at + 2])
            words[at : at + 2] = [f"<em>{marked}</em>" if dice.chance(50) else f'<a href="/topics">{marked}</a>']
        lines.append(f"<p>{' '.join(words)}</p>")
    return "\n".join(lines)


def render(site: Site, title: str, body: str, date: str, related: Sequence[Link], dice: Dice) -> str:
    """A whole HTML page: `body` (HTML) inside the site's layout. `date` is YYYY-MM-DD."""
    comments = "".join(
        f'<li class="comment"><cite>{html.escape(dice.choice(_NAMES))}</cite> <time>{date}</time>'
        f"<p>{html.escape(dice.choice(_REMARKS))}</p><a href='#reply'>Reply</a> <a href='#flag'>Report</a></li>"
        for _ in range(dice.below(6))
    )
    return Template(LAYOUTS[site.layout]).substitute(
        title=html.escape(title),
        name=html.escape(site.name),
        host=site.host,
        date=date,
        author=html.escape(dice.choice(_NAMES)),
        body=body,
        nav=_links(dice.sample(_NAV, dice.between(8, 16))),
        footer=_links(dice.sample(_FOOTER, dice.between(5, 9))),
        related="".join(f'<li><a href="{link.url}">{html.escape(link.title)}</a></li>' for link in related),
        comments=comments,
        ad=html.escape(dice.choice(_ADS)),
        views=dice.between(40, 90000),
        style=STYLE,
        script=SCRIPT.replace("ACCOUNT", f"UA-{dice.between(10000, 99999)}-{dice.between(1, 9)}"),
    )


def _links(names: Sequence[str]) -> str:
    return "".join(f'<li><a href="/{re.sub("[^a-z]+", "-", name.lower())}">{name}</a></li>' for name in names)
