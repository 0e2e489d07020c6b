"""A page as a browser would read it, with checks that it is whole and refers to nothing outside."""

from __future__ import annotations

import re
from html.parser import HTMLParser

VOID = {"br", "img", "meta"}  # elements without an end tag
HOSTILE = "<script>alert(1)</script>"


class Page(HTMLParser):
    """Text and elements; every element that opens also closes, in order.

    Attributes:
        seen: name and attributes of each element.
        text: what is shown, with single spaces.
    """

    def __init__(self, html: str) -> None:
        super().__init__()
        self.seen: list[tuple[str, dict[str, str | None]]] = []
        self._open: list[str] = []
        self._words: list[str] = []
        self.feed(html)
        self.close()
        assert self._open == []
        self.text = " ".join(" ".join(self._words).split())

    @property
    def sections(self) -> list[str | None]:
        """Their ids, in order."""
        return [attributes.get("id") for name, attributes in self.seen if name == "section"]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self._open:
            self._words.append(data)


def read_page(html: str) -> Page:
    """The page, which loads nothing, runs nothing and has each id once."""
    page = Page(html)
    assert html.startswith("<!doctype html>")
    policy = {a["content"] for _, a in page.seen if a.get("http-equiv")}
    assert policy == {"default-src 'none'; style-src 'unsafe-inline'; img-src data:"}
    drawn = re.sub(r'"data:image/jpeg;base64,[^"]*"', '""', html)
    assert not re.search(r"https?:|//[a-z]|@import|<link|<script|<iframe", drawn, re.IGNORECASE)
    for _, attributes in page.seen:
        for name in ("href", "src", "xlink:href"):
            assert (attributes.get(name) or "#").startswith(("#", "data:image/jpeg;base64,"))
        assert not any(name.startswith("on") for name in attributes)
    ids = [attributes["id"] for _, attributes in page.seen if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert set(re.findall(r'(?:href="#|url\(#)([^")]+)', html)) <= {*ids}
    return page
