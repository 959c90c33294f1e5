"""The HTML page of a report: self-contained, without scripts, made of the JSON document and thumbnails alone.

Each number on it is an element ``<data>`` with its exact value and its place in the document. Names are
foreign data: Jinja escapes all of them, and what cannot be printed is replaced.
"""

import base64
import math
from collections.abc import Callable, Mapping
from functools import cache, partial
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from orchestrator.report.charts import draw_accuracy, draw_learning_curve
from orchestrator.report.kinds import KINDS

__all__ = ["FORMATS", "render"]


_SHARES = {
    "accuracy": "right among the decided",
    "unsure": "unsure",
    "far": "far from all training images",
    "false_rejects": "good parts rejected",
    "escapes": "defects passed as good",
}


def _format_size(value: float) -> str:
    size, unit = float(value), 0
    while size >= 1000 and unit < 4:
        size, unit = size / 1000, unit + 1
    return f"{value:.0f} bytes" if unit == 0 else f"{size:.1f} {('', 'KB', 'MB', 'GB', 'TB')[unit]}"


def _format_seconds(value: float) -> str:
    minutes, seconds = divmod(round(value), 60)
    if minutes < 1:
        return f"{value:.1f} s"
    hours = f"{minutes // 60}:{minutes % 60:02}" if minutes >= 60 else f"{minutes}"
    return f"{hours}:{seconds:02}"


FORMATS: Mapping[str, Callable[[float], str]] = {
    "share": "{:.3f}".format,
    "gain": "{:+.3f}".format,
    "percent": "{:.1%}".format,
    "count": "{:.0f}".format,
    "number": "{:.3g}".format,
    "size": _format_size,
    "time": _format_seconds,
}


def render(report: Mapping[str, Any], thumbnails: Mapping[str, bytes]) -> str:
    """The page.

    Args:
        report: The document, see ``orchestrator.report.document``.
        thumbnails: JPEG by the digest of a picture.
    """
    return (
        _environment()
        .get_template("report.html")
        .render(
            report=_clean(report),
            figure=partial(_figure, report),
            picture=lambda digest: _data_url(thumbnails.get(digest)),
            bar=lambda one: Markup(
                draw_accuracy(
                    one["accuracy_low"], one["accuracy"], one["accuracy_high"], one["probe_accuracy"]
                )
            ),
            curve=lambda found: Markup(draw_learning_curve(found["probe"], found["expected"])),
            kinds=KINDS,
            shares=_SHARES,
        )
    )


@cache
def _environment() -> Environment:
    """The templates, compiled once."""
    return Environment(
        loader=PackageLoader("orchestrator.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _figure(report: Mapping[str, Any], place: str, form: str) -> Markup:
    """A number of the document; a dash where it is not known."""
    value: Any = report
    for step in place.split("."):
        value = value[int(step)] if isinstance(value, list) else value[step]
    if value is None:
        return Markup("-")
    return Markup('<data value="{}" data-of="{}" data-as="{}">{}</data>').format(
        repr(value), place, form, FORMATS[form](value)
    )


def _data_url(jpeg: bytes | None) -> str | None:
    return None if jpeg is None else f"data:image/jpeg;base64,{base64.b64encode(jpeg).decode()}"


def _clean(value: Any) -> Any:
    """The same value with whatever cannot be printed in its texts replaced: also half characters."""
    if isinstance(value, str):
        return "".join(char if char.isprintable() else "\ufffd" for char in value)
    if isinstance(value, Mapping):
        return {_clean(name): _clean(one) for name, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_clean(one) for one in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
