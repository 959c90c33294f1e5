"""A report on answered pictures as one HTML page: no script, nothing from elsewhere, every name escaped."""

import base64
import html
from collections.abc import Mapping, Sequence
from typing import Any

from orchestrator.cli.output import printable
from orchestrator.cli.picture_report import headlines

__all__ = ["render_page"]

# A matrix of more classes is none that a person reads; the most frequent confusions then stand in its place.
_MAX_CLASSES, _NUM_CONFUSIONS = 30, 50
# Only what is in the page itself may be loaded, whatever a name in it says.
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
_STYLE = """
:root { color-scheme: light dark; --line: #8886; --bad: #c22; --good: #282; }
@media (prefers-color-scheme: dark) { :root { --bad: #f77; --good: #7c7; } }
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 72rem; padding: 0 1rem; }
h1 { font-size: 1.4rem; } h2 { font-size: 1.1rem; margin-top: 2rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; } th, td { border: 1px solid var(--line); padding: .2rem .5rem; }
td { text-align: right; } th { text-align: left; font-weight: 600; }
td.right { color: var(--good); } td.wrong { color: var(--bad); }
.grid { display: grid; grid-template-columns: repeat(auto-fill, minmax(14rem, 1fr)); gap: 1rem; }
figure { border: 1px solid var(--line); border-radius: .4rem; margin: 0; padding: .6rem; }
figure.accept { border: 2px solid var(--bad); }
figure img, figure .none { width: 96px; height: 96px; object-fit: contain; display: block; }
figure .none { border: 1px dashed var(--line); font-size: .8rem; box-sizing: border-box; padding: .4rem; }
figcaption { overflow-wrap: anywhere; font-size: .9rem; margin-top: .4rem; }
.accept strong { color: var(--bad); }
"""


def render_page(report: Mapping[str, Any], thumbnails: Mapping[int, bytes]) -> str:
    """The page.

    Args:
        report: Values that ``--json`` prints.
        thumbnails: JPEG of pictures, by place.
    """
    title = _text(f"{report['task']} v{report['version']}")
    sections = [
        f"<h1>{title}</h1>",
        *(f"<p>{_text(line)}</p>" for line in headlines(report)),
        "<h2>Labels and answers</h2>",
        _confusion(report),
        f"<h2>Wrong answers: {report['num_mistakes']}</h2>",
        _mistakes(report, thumbnails),
        "<h2>Right answers with the least lead</h2>",
        _grid([_narrow(one, thumbnails) for one in report["narrowest"]]),
    ]
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{_POLICY}">
<meta name="viewport" content="width=device-width">
<title>{title}</title>
<style>{_STYLE}</style>
</head>
<body>
{chr(10).join(sections)}
</body>
</html>
"""


def _confusion(report: Mapping[str, Any]) -> str:
    labels = report["labels"]
    if len(labels) > _MAX_CLASSES:
        return _frequent_confusions(labels, report["confusion"])
    head = "".join(f"<th>{_text(label)}</th>" for label in labels)
    rows = []
    for truth, counts in enumerate(report["confusion"]):
        cells = "".join(_cell(count, truth == answer) for answer, count in enumerate(counts))
        found = report["recall"].get(labels[truth])
        recall = "" if found is None else f"{found['share']:.4f}"
        rows.append(f"<tr><th>{_text(labels[truth])}</th>{cells}<td>{recall}</td></tr>")
    return (
        f'<div class="wide"><table><tr><th>label \\ answer</th>{head}<th>recall</th></tr>'
        f"{''.join(rows)}</table></div>"
    )


def _cell(count: int, is_right: bool) -> str:
    kind = "" if not count else ' class="right"' if is_right else ' class="wrong"'
    return f"<td{kind}>{count}</td>"


def _frequent_confusions(labels: Sequence[str], confusion: Sequence[Sequence[int]]) -> str:
    found = [
        (count, labels[truth], labels[answer])
        for truth, counts in enumerate(confusion)
        for answer, count in enumerate(counts)
        if count and truth != answer
    ]
    rows = "".join(
        f"<tr><th>{_text(truth)}</th><th>{_text(answer)}</th><td>{count}</td></tr>"
        for count, truth, answer in sorted(found, key=lambda one: -one[0])[:_NUM_CONFUSIONS]
    )
    return f"<table><tr><th>label</th><th>answer</th><th>images</th></tr>{rows}</table>"


def _mistakes(report: Mapping[str, Any], thumbnails: Mapping[int, bytes]) -> str:
    figures = []
    for one in report["mistakes"]:
        kind = ' class="accept"' if one["is_false_accept"] else ""
        unsure = "" if one["because"] is None else f" ({one['because']})"
        probe = "" if one["probe_answer"] is None else f"<br>linear probe: {_text(one['probe_answer'])}"
        figures.append(
            f"<figure{kind}>{_picture(one['place'], thumbnails)}<figcaption>"
            f"answer: <strong>{_text(one['answer'])}</strong> {one['probability']:.4f}<br>"
            f"label: {_text(one['label'])} {one['label_probability']:.4f}<br>"
            f"decision: {_text(one['decision'])}{unsure}{probe}<br>{_text(one['path'])}</figcaption></figure>"
        )
    left = report["num_mistakes"] - len(figures)
    return _grid(figures) + (f"<p>{left} more are not shown.</p>" if left else "")


def _narrow(one: Mapping[str, Any], thumbnails: Mapping[int, bytes]) -> str:
    return (
        f"<figure>{_picture(one['place'], thumbnails)}<figcaption>"
        f"answer: {_text(one['label'])} {one['probability']:.4f}<br>"
        f"next: {_text(one['next'])} {one['next_probability']:.4f}<br>{_text(one['path'])}"
        "</figcaption></figure>"
    )


def _grid(figures: Sequence[str]) -> str:
    return f'<div class="grid">{"".join(figures)}</div>' if figures else "<p>None.</p>"


def _picture(place: int, thumbnails: Mapping[int, bytes]) -> str:
    if place not in thumbnails:
        return '<div class="none">no thumbnail</div>'
    return f'<img alt="" src="data:image/jpeg;base64,{base64.b64encode(thumbnails[place]).decode()}">'


def _text(text: str) -> str:
    return html.escape(printable(text))
