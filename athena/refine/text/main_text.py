"""trafilatura's main text in its default setting, the same characters in less time.

A third of trafilatura's time goes to XPath expressions that search every element's class and id, a sixth to a second
extractor whose answer it mostly cannot use, a tenth to a third one. The installed package is loaded here a second
time, under another name, and that instance gets parts that answer the same sooner. Whoever imports `trafilatura` gets
it as it is. setup.py pins its version.
"""

from __future__ import annotations

import importlib.util
import re
import sys
from importlib import import_module
from types import ModuleType
from typing import Any

from justext.core import ParagraphMaker
from justext.paragraph import Paragraph
from lxml.etree import ElementDefaultClassLookup, XPath, strip_elements
from lxml.html import HtmlComment, HtmlElement, HtmlEntity, HtmlProcessingInstruction

from athena.refine.text.element_paths import RememberedPath

_INSTANCE = "athena_trafilatura"
_PARAGRAPH_TEXT = XPath("boolean(.//p//text())")
_IFRAMES = XPath("count(.//iframe)")
_CHANGING_SPACES = re.compile(r"\s\s+|[^\S \n]")
_MAX_IFRAME_TEXT = len(" VIDEO ")  # what readability writes into each frame that shows a film


def _quick_core() -> Any:
    """The module `core` of the instance, with its parts in place."""
    spec = importlib.util.find_spec("trafilatura")
    assert spec is not None and spec.submodule_search_locations is not None  # it is a requirement of this package
    package = ModuleType(_INSTANCE)  # its own __init__ is left out: it loads what fetches pages
    package.__path__ = list(spec.submodule_search_locations)
    sys.modules[_INSTANCE] = package
    _remember_paths()
    # lxml.html asks Python for the class of each element, to tell forms and their fields from others.
    _part("utils").HTML_PARSER.set_element_class_lookup(
        ElementDefaultClassLookup(HtmlElement, HtmlComment, HtmlProcessingInstruction, HtmlEntity)
    )
    core, external, utils, processing = map(_part, ("core", "external", "utils", "htmlprocessing"))
    utils.INVALID_XML_CHARS = _InvalidCharacters(utils.INVALID_XML_CHARS)
    processing.link_density_test = _only_with_links(processing.link_density_test)
    external.ParagraphMaker = _QuickParagraphMaker
    core.compare_extraction = _without_readability_in_vain(external)
    return core


def _part(name: str) -> Any:
    return import_module(f"{_INSTANCE}.{name}")


def _remember_paths() -> None:
    paths = _part("xpaths")
    # Of these, trafilatura takes the first match in the document.
    paths.BODY_XPATH[:] = [path if _is_plain(path) else RememberedPath(path, "first") for path in paths.BODY_XPATH]
    for rules in (
        paths.OVERALL_DISCARD_XPATH,
        paths.TEASER_DISCARD_XPATH,
        paths.DISCARD_IMAGE_ELEMENTS,
        paths.REMOVE_COMMENTS_AND_LISTS_XPATH,
    ):
        rules[:] = map(RememberedPath, rules)
    paths.RAW_TREE_PRUNE_XPATH[:] = [RememberedPath(path, "if-any") for path in paths.RAW_TREE_PRUNE_XPATH]
    baseline = _part("baseline")
    baseline.BASIC_CLEAN_XPATH = RememberedPath(baseline.BASIC_CLEAN_XPATH)


def _is_plain(path: XPath) -> bool:
    """Whether the path looks for a tag alone, at which libxml2 is fast."""
    return "@" not in path.path


def _without_readability_in_vain(external: Any) -> Any:
    """trafilatura's choice between its own text and readability's, without readability where it would lose anyway.

    In the balanced setting readability wins over a clean text of the usual length only if its own is more than twice
    as long, or if the text has no paragraphs or more tables than these. It cannot be longer than the page's whole.
    """
    compare = external.compare_extraction
    sanitized = XPath(external.SANITIZED_XPATH)

    def compare_extraction(cleaned: Any, raw: Any, body: Any, text: str, options: Any) -> tuple[Any, str]:
        settled = (
            options.focus == "balanced"
            and len(text) >= options.min_extracted_size
            and _PARAGRAPH_TEXT(body)
            and len(body.findall(".//table")) <= len(body.findall(".//p"))
            and not sanitized(body)
            and 2 * len(text) >= _longest_readable(raw)  # which drops what readability drops first, too
        )
        if settled:
            return body, text
        chosen: tuple[Any, str] = compare(cleaned, raw, body, text, options)
        return chosen

    return compare_extraction


def _longest_readable(tree: HtmlElement) -> int:
    """No text that readability makes of the tree, less its scripts, has more characters, white space collapsed."""
    strip_elements(tree, "script", "style", with_tail=False)
    return len(" ".join(tree.text_content().split())) + _MAX_IFRAME_TEXT * int(_IFRAMES(tree))


def _only_with_links(link_density_test: Any) -> Any:
    """The test of an element's links, which most elements have none of."""

    def quick(element: Any, favor_precision: bool = False) -> tuple[bool, bool]:
        if next(element.iterdescendants("ref"), None) is None:
            return False, False
        found: tuple[bool, bool] = link_density_test(element, favor_precision)
        return found

    return quick


class _InvalidCharacters:
    """The pattern of characters that XML does not allow. Hardly any page holds one, and bytes show that sooner."""

    def __init__(self, pattern: re.Pattern[str]) -> None:
        self._pattern = pattern
        self._controls = bytes(code for code in range(128) if pattern.match(chr(code)))

    def sub(self, replacement: str, text: str) -> str:
        raw = text.encode("utf-8", "surrogatepass")
        if len(raw.translate(None, self._controls)) == len(raw) and "\ufffe" not in text and "\uffff" not in text:
            return text
        return self._pattern.sub(replacement, text)


class _QuickParagraph(Paragraph):  # type: ignore[misc]
    """jusText's paragraph, which joins its text once and does not write down its XPath, of which nothing is made."""

    def __init__(self, path: Any) -> None:
        self.dom_path = path.dom
        self.text_nodes: list[str] = []
        self.chars_count_in_links = 0
        self.tags_count = 0
        self.class_type = ""
        self._joined: str | None = None

    @property
    def text(self) -> str:
        if self._joined is None:
            self._joined = _collapsed("".join(self.text_nodes).strip())
        return self._joined

    def append_text(self, text: str) -> str:
        text = _collapsed(text)
        self.text_nodes.append(text)
        self._joined = None
        return text


class _QuickParagraphMaker(ParagraphMaker):  # type: ignore[misc]
    paragraph: _QuickParagraph | None
    paragraphs: list[_QuickParagraph]

    def _start_new_pragraph(self) -> None:
        if self.paragraph:  # that is, if it has text
            self.paragraphs.append(self.paragraph)
        self.paragraph = _QuickParagraph(self.path)


def _collapsed(text: str) -> str:
    """White space as jusText has it: of each run one character, a line break if there was one, else a space."""
    return _CHANGING_SPACES.sub(lambda run: "\n" if "\n" in run[0] or "\r" in run[0] else " ", text)


_CORE = _quick_core()


def main_text(html: str) -> str | None:
    """The main text, one line per block, without comments; None if there is none.

    Equal to `trafilatura.extract(html, include_comments=False)`, and raises what that raises.
    """
    text: str | None = _CORE.extract(html, include_comments=False)
    return text
