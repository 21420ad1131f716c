"""XPath expressions over an element's own tag and attributes, asked once for each kind of element.

Boilerplate rules such as `.//*[self::div][re:test(@class, 'share|social|…')]` look at each element by itself, and
pages repeat the same few hundred combinations of classes and ids. So the expression itself judges one copy of each
combination, and the answers are remembered: about five times faster than a walk by libxml2, with the same matches.
"""

from __future__ import annotations

import re
from typing import Literal

from lxml.etree import Element, SubElement, XPath
from lxml.html import HtmlElement

_MAX_REMEMBERED = 1 << 14  # kinds of elements; with the cap on their length at most 20 MiB for each path
_MAX_KIND_CHARS = 512
_LITERAL = re.compile(r"'([^']*)'")
_ATTRIBUTE = re.compile(r"@([\w-]+)")
_TAG = re.compile(r"(?:self::|//)(\w+)")
# `.//*[self::a or self::b][…`, perhaps in brackets, and no union of several paths: only such tags can match.
_TAGS_FIRST = re.compile(r"\s*\(?\s*\.//\*\[((?:self::\w+(?: or )?)+)\]\s*\[")
_UNION_OF_PATHS = re.compile(r"\|(?!@)")
_PATTERN = re.compile(r"re:test\([^']*'([^']*)'\s*(,\s*'i')?\)")
_TRANSLATED = re.compile(r"translate\(([^,]*),[^)]*\)")


class RememberedPath:
    """Equal to the XPath for a path that starts at `.//` and whose predicates see the tag and attributes alone.

    `answers`: all matches in document order, or the first one only (in place of `[1]`). With "if-any", for a path that
    also looks into elements, a tree in which a childless copy of no element matches has none, and any other tree is
    left to the XPath; a predicate about descendants must hold where there are none.
    """

    def __init__(self, path: XPath, answers: Literal["all", "first", "if-any"] = "all") -> None:
        self._path = path
        self._answers = answers
        syntax = _LITERAL.sub("''", path.path)
        self._attributes = tuple(dict.fromkeys(_ATTRIBUTE.findall(syntax)))
        self._first_written = "|@" in syntax  # @id|@class is of these the one that the page writes first
        self._named_tags = frozenset(_TAG.findall(syntax))
        first = _TAGS_FIRST.match(syntax)
        self._tags = tuple(_TAG.findall(first[1])) if first and not _UNION_OF_PATHS.search(syntax) else ("*",)
        self._searched = re.compile(_searched(path.path))
        self._remembered: dict[tuple[str | None, ...], bool] = {}
        self._judged: dict[tuple[str, ...], bool] = {}

    def __call__(self, tree: HtmlElement) -> list[HtmlElement]:
        attributes, remembered, first_written = self._attributes, self._remembered, self._first_written
        matches = []
        for element in tree.iterdescendants(*self._tags):
            kind = (element.tag, *map(element.get, attributes))
            if first_written and kind.count(None) < len(attributes) - 1:
                names = element.keys()  # an element by itself iterates over its children
                kind += tuple([name for name in names if name in attributes])
            matched = remembered.get(kind)
            if matched is None:
                try:
                    matched = self._judge(element, kind)
                except ValueError:  # a character reference can put into a value what lxml does not let in
                    return list(self._path(tree))
            if matched:
                if self._answers == "if-any":
                    return list(self._path(tree))
                matches.append(element)
                if self._answers == "first":
                    break
        return matches

    def __str__(self) -> str:
        return str(self._path)

    def _judge(self, element: HtmlElement, kind: tuple[str | None, ...]) -> bool:
        """What the path says of a copy of the element without its content."""
        # Broken markup makes tags that lxml would not; the path tells apart only those that it names.
        plain = [element.tag if element.tag in self._named_tags else "other"]
        for name, value in element.items():
            if name in self._attributes:
                plain += (name, value if self._searched.search(value) else "")
        key = tuple(plain)
        matched = self._judged.get(key)
        if matched is None:
            parent = Element("div")
            copy = SubElement(parent, key[0])
            for name, value in zip(key[1::2], key[2::2], strict=True):
                copy.set(name, value)
            matched = bool(self._path(parent))
        if sum(map(len, filter(None, kind))) <= _MAX_KIND_CHARS:
            if len(self._remembered) >= _MAX_REMEMBERED:
                self._remembered.clear()
                self._judged.clear()
            self._remembered[kind] = self._judged[key] = matched
        return matched


def _searched(path: str) -> str:
    """A pattern for what the path looks for in attributes: a value that it does not match is as good as an empty one.

    Patterns count as they are, other literals without regard to case, because they may stand beside `translate`.
    """
    patterns = [f"(?i:{pattern})" if ignore_case else pattern for pattern, ignore_case in _PATTERN.findall(path)]
    others = _LITERAL.findall(_TRANSLATED.sub(r"\1", _PATTERN.sub("", path)))
    return "|".join([*patterns, *(f"(?i:{re.escape(literal)})" for literal in others)])
