"""Reader of a report's page: its elements, its numbers and whatever a browser would fetch or run."""

import json
from dataclasses import dataclass, field
from html.parser import HTMLParser
from typing import Any

__all__ = ["Figure", "PageReader", "check_figures"]

_VOID = {"meta", "img", "br", "link", "input"}
_FETCHING = {"src", "href", "xlink:href", "action", "data", "poster", "srcset"}


# The formats of numbers once more, by what they mean.
FORMATS = {
    "share": lambda value: f"{value:.3f}",
    "gain": lambda value: f"{value:+.3f}",
    "percent": lambda value: f"{100 * value:.1f}%",
    "count": lambda value: f"{value:.0f}",
    "number": lambda value: f"{value:.3g}",
    "size": lambda value: f"{value} bytes" if value < 1000 else f"{value / 1000:.1f} KB",
    "time": lambda value: (
        f"{value:.1f} s" if value < 59.5 else f"{round(value) // 60}:{round(value) % 60:02}"
    ),
}


@dataclass(kw_only=True)
class Figure:
    """One number of the page."""

    value: str
    place: str
    form: str
    text: str = ""


@dataclass(kw_only=True)
class PageReader(HTMLParser):
    """A parsed page.

    Attributes:
        tags: Names of all elements.
        figures: Numbers.
        addresses: All that a browser would fetch or follow.
        handlers: Attributes that run scripts.
        text: Text of the page, without its style sheet.
        open: Elements that are open; none in the end.
    """

    tags: list[str] = field(default_factory=list)
    figures: list[Figure] = field(default_factory=list)
    addresses: list[str] = field(default_factory=list)
    handlers: list[str] = field(default_factory=list)
    attributes: list[tuple[str, str, str | None]] = field(default_factory=list)
    text: str = ""
    open: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__(convert_charrefs=True)

    @classmethod
    def of(cls, page: bytes) -> "PageReader":
        reader = cls()
        reader.feed(page.decode())
        reader.close()
        return reader

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(tag, name, value) for name, value in attrs]
        self.addresses += [value or "" for name, value in attrs if name in _FETCHING]
        self.handlers += [name for name, _ in attrs if name.startswith("on")]
        if tag == "data":
            said = dict(attrs)
            self.figures.append(Figure(value=said["value"], place=said["data-of"], form=said["data-as"]))
        if tag not in _VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in _VOID:
            self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        while self.open and self.open.pop() != tag:
            if self.open and self.open[-1] not in ("p", "li", "tr", "td", "th"):
                continue

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.text += data
        if self.open and self.open[-1] == "data":
            self.figures[-1].text += data


def check_figures(page: bytes, document: bytes) -> set[str]:
    """Recompute every number of a page from the document; returns their places there."""
    values = json.loads(document)
    figures = PageReader.of(page).figures
    for figure in figures:
        value = _look_up(values, figure.place)
        assert float(figure.value) == value, figure
        assert figure.text == FORMATS[figure.form](value), figure
    return {figure.place for figure in figures}


def _look_up(document: Any, place: str) -> Any:
    for step in place.split("."):
        document = document[int(step)] if isinstance(document, list) else document[step]
    return document
