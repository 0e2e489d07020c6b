"""HTML that cannot forget to escape: only `Html` values pass through `tag` unchanged."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape

VOID = {"br", "img", "meta"}  # elements without an end tag
DASH = "\u2013"  # shown where a number is not known


class Html(str):
    """Text that is markup already; every other string is escaped on its way into the page."""


def tag(name: str, /, *children: object, **attributes: str) -> Html:
    """One element; children are `Html`, or anything else as escaped text, or iterables of both.

    A trailing underscore in an attribute is dropped: `class_="note"`.
    """
    start = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(value)}"'
        for key, value in attributes.items()
    )
    end = "" if name in VOID else f"</{name}>"
    return Html(f"<{name}{start}>{join(*children)}{end}")


def join(*children: object) -> Html:
    """Children one after another, escaped where they are not `Html`."""
    parts = []
    for child in children:
        if isinstance(child, Html):
            parts.append(str(child))
        elif isinstance(child, Iterable) and not isinstance(child, str):
            parts.append(join(*child))
        else:
            parts.append(escape(str(child)))
    return Html("".join(parts))


@dataclass(frozen=True)
class Section:
    """A titled part of the page that says in a sentence what one sees."""

    title: str
    explanation: str
    content: Sequence[object]

    @property
    def anchor(self) -> str:
        return "-".join(self.title.lower().split())

    def html(self) -> Html:
        lead = tag("p", self.explanation, class_="lead")
        return tag("section", tag("h2", self.title), lead, *self.content, id=self.anchor)


def missing(what: str, path: str) -> Html:
    """A note in place of a part that the run does not have."""
    return tag("p", f"{what} missing: this run has no ", tag("code", path), ".", class_="missing")


def table(head: Sequence[object], rows: Iterable[Sequence[object]], caption: str = "") -> Html:
    """A table whose first column names the row; wide ones scroll."""
    body = [
        tag("tr", tag("th", first, scope="row"), [tag("td", cell) for cell in rest])
        for first, *rest in rows
    ]
    title = tag("caption", caption) if caption else ""
    header = tag("thead", tag("tr", [tag("th", cell, scope="col") for cell in head]))
    return tag("div", tag("table", title, header, tag("tbody", body)), class_="scroll")


def cards(figures: Iterable[tuple[str, str, str]]) -> Html:
    """Figures to remember, each with a name and a note."""
    return tag(
        "div",
        [
            tag("div", tag("b", value), tag("span", name), tag("small", note), class_="card")
            for value, name, note in figures
        ],
        class_="cards",
    )


def number(value: object, digits: int = 3) -> str:
    """`0.5` -> `0.500`, and a dash for what is no finite number."""
    if isinstance(value, int | float) and math.isfinite(value):
        return f"{value:.{digits}f}"
    return DASH


def percent(value: object, digits: int = 1) -> str:
    """`0.123` -> `12.3 %`, and a dash for what is no finite number."""
    if isinstance(value, int | float) and math.isfinite(value):
        return f"{100 * value:.{digits}f} %"
    return DASH


def legend(colours: Mapping[str, str]) -> Html:
    """Names beside their colours."""
    return tag(
        "div",
        [
            tag("span", tag("i", style=f"background:{colour}"), name)
            for name, colour in colours.items()
        ],
        class_="legend",
    )


def collapsed(title: str, content: object) -> Html:
    """Content behind a title that opens it."""
    return tag("details", tag("summary", title), content)


def words(name: str) -> str:
    """`"speaker_accuracy"` -> `"speaker accuracy"`."""
    return name.replace("_", " ")
