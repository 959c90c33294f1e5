"""The report in a real browser: as wide as a phone, light and dark, with hostile names, nothing blocked."""

import json
import re
import subprocess
from html import unescape
from pathlib import Path
from typing import Any

import pytest

from orchestrator.report.document import make_report
from orchestrator.report.section import make_section
from tests.needs import BROWSER
from tests.unit.orchestrator.report.factory import (
    HOSTILE,
    make_card,
    make_held_out,
    make_record,
    make_verdict,
)

pytestmark = pytest.mark.skipif(BROWSER.problem() is not None, reason=str(BROWSER.problem()))

# A page around the report, which looks at it and writes down what it finds.
LOOK = """<!DOCTYPE html><body><iframe width="400" height="900" src="report.html"></iframe><script>
const frame = document.querySelector("iframe"), blocked = [];
frame.onload = () => {
  const page = frame.contentDocument, elements = [...page.querySelectorAll("body *")];
  page.addEventListener("securitypolicyviolation", event => blocked.push(event.blockedURI));
  document.body.setAttribute("data-found", JSON.stringify({
    too_wide: elements.filter(one => !one.closest(".wide, svg") && one.getBoundingClientRect().right > 401)
      .map(one => one.outerHTML.slice(0, 80)),
    ground: frame.contentWindow.getComputedStyle(page.body).backgroundColor,
    pictures: [...page.images].map(one => one.naturalWidth),
    scripts: page.scripts.length,
    text: page.body.innerText,
    blocked,
  }));
};
</script></body>"""


def look(folder: Path, *flags: str) -> Any:
    (folder / "look.html").write_text(LOOK)
    found = subprocess.run(
        [
            *("chromium", "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={folder}/profile"),
            *("--allow-file-access-from-files", "--virtual-time-budget=5000", "--dump-dom", *flags),
            (folder / "look.html").as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
    )
    said = re.search(r'data-found="([^"]*)"', found.stdout)
    assert said is not None, found.stdout[:1000] + found.stderr[-1000:]
    return json.loads(unescape(said[1]))


@pytest.mark.parametrize(
    ("flags", "ground"),
    [((), "rgb(255, 255, 255)"), (("--blink-settings=preferredColorScheme=0",), "rgb(20, 23, 28)")],
)
def test_the_report_fits_a_phone_in_light_and_dark(
    tmp_path: Path, flags: tuple[str, ...], ground: str
) -> None:
    labels = ("good", HOSTILE)
    section = make_section(
        make_card(),
        make_record(labels),
        make_held_out(labels, name=HOSTILE),
        verdict=make_verdict(),
        before=make_card(metrics={"accuracy": 0.75}),
    )
    failed = make_verdict("a-task-with-quite-a-long-name-of-sixty-three-characters-in-all-x", "failed")
    run = {"name": "tune-1", "manifest": HOSTILE}
    make_report(run, [make_verdict(), failed], {"welds": section}).write(tmp_path)
    found = look(tmp_path, *flags)
    assert found["too_wide"] == []
    assert found["ground"] == ground
    assert found["pictures"] == [96] * len(found["pictures"])
    assert len(found["pictures"]) >= 7
    assert (found["scripts"], found["blocked"]) == (0, [])
    assert "1 of 2 serve; 1 failed" in found["text"]
    assert "<script>alert('x')</script>" in found["text"]
