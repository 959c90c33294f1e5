"""Contrast of the console's colours in both schemes, by WCAG 2.2: 4.5 for text, 3 for lines."""

import re

import pytest

from orchestrator.console.assets import find_assets

KINDS = ("good", "warn", "bad", "info")
PAIRS = [
    *((text, ground) for text in ("text", "faint", "link", *KINDS) for ground in ("ground", "raised")),
    *((text, f"{kind}-ground") for kind in KINDS for text in (kind, "text", "faint")),
    ("on-strong", "strong"),
]


def schemes() -> dict[str, dict[str, str]]:
    css = find_assets()["console.css"].content.decode()
    light, dark = re.findall(r":root \{(.*?)\}", css, re.DOTALL)
    read = [dict(re.findall(r"--([a-z-]+): (#[0-9a-f]{6})", block)) for block in (light, dark)]
    return {"light": read[0], "dark": read[1]}


def luminance(colour: str) -> float:
    shares = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [share / 12.92 if share <= 0.04045 else ((share + 0.055) / 1.055) ** 2.4 for share in shares]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def test_contrast_is_that_of_the_standard() -> None:
    assert contrast("#000000", "#ffffff") == pytest.approx(21.0)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_texts_and_lines_can_be_read(scheme: str) -> None:
    colours = schemes()[scheme]
    for text, ground in PAIRS:
        assert contrast(colours[text], colours[ground]) >= 4.5, (text, ground)
    for line in ("focus", "faint"):
        assert contrast(colours[line], colours["ground"]) >= 3.0, line
