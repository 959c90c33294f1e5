"""Reports on answered pictures for a terminal, printed from the plain values that ``--json`` prints."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from orchestrator.cli.output import printable

__all__ = ["describe_images", "describe_share", "headlines", "print_comparison", "print_report"]

# A wider confusion matrix is none that a person reads in a terminal.
_MAX_CLASSES = 12
# A path of more characters is folded where the others find no room.
_WIDEST_PATH = 40


def print_report(console: Console, report: Mapping[str, Any], limit: int) -> None:
    """Print figures, the confusion matrix and the mistakes, at most ``limit`` of these."""
    for line in headlines(report):
        _print(console, line)
    if len(report["labels"]) <= _MAX_CLASSES:
        console.print(_confusion_table(report))
    mistakes = report["mistakes"][:limit]
    if mistakes:
        console.print(_mistakes_table(mistakes))
    if (left := report["num_mistakes"] - len(mistakes)) > 0:
        _print(console, f"{left} more are wrong: --limit {report['num_mistakes']} lists all.")


def print_comparison(console: Console, result: Mapping[str, Any], limit: int) -> None:
    """Print the outcome, and the pictures that were fixed and broken, at most ``limit`` of each."""
    for one in result["versions"]:
        _print(
            console,
            f"v{one['version']}: accuracy {describe_share(one['accuracy'])}, balanced "
            f"{one['balanced_accuracy']:.4f}",
        )
    _print(
        console, f"Both are right on {result['num_both_right']}, both wrong on {result['num_both_wrong']}."
    )
    first, second = (f"v{one['version']}" for one in result["versions"])
    for word in ("fixed", "broken"):
        rows = result[word][:limit]
        if rows:
            table = _table(f"{word} by {second}", "label", f"{first} answers", f"{second} answers")
            for row in rows:
                table.add_row(*map(_cell, (row["path"], row["label"], *row["answers"])))
            console.print(table)
        if (left := result[f"num_{word}"] - len(rows)) > 0:
            _print(console, f"{left} more are {word}: --limit {result[f'num_{word}']} lists all.")
    _print(console, result["outcome"])


def headlines(report: Mapping[str, Any]) -> list[str]:
    """Sentences with the figures of a report."""
    lines = [
        f"{report['task']} v{report['version']} on {describe_images(report)}: accuracy "
        f"{describe_share(report['accuracy'])}, balanced {report['balanced_accuracy']:.4f}.",
        f"Expected calibration error {report['calibration_error']:.4f}.",
    ]
    if report["escapes"] is not None:
        lines.append(
            f"False accepts (answered {printable(report['good'])!r}, but of another class): "
            f"{describe_share(report['escapes'])}; false rejects: {describe_share(report['false_rejects'])}."
        )
    if report["num_kept"] < report["num_images"]:
        lines.append(
            f"{report['num_kept']} of {report['num_images']} held-out images are on record, evenly spaced; "
            "the figures are of these."
        )
    decision = report["decision"]
    lines.append(
        f"By the decision rule: right in {describe_share(decision['accuracy'])} of the decided, unsure in "
        f"{describe_share(decision['unsure'])}, far from all training images "
        f"{describe_share(decision['far'])}."
    )
    return lines


def describe_images(report: Mapping[str, Any]) -> str:
    """The images of a report in words."""
    if report["data"] is None:
        return f"{report['num_kept']} held-out images"
    split = "" if report["split"] is None else f", split {report['split']}"
    return f"{report['num_images']} images of {printable(report['data'])}{split}"


def describe_share(share: Mapping[str, Any]) -> str:
    """A share with its counts and 95% interval."""
    if share["share"] is None:
        return "none of 0"
    return (
        f"{share['share']:.4f} ({share['num']} of {share['of']}; {share['low']:.4f} to {share['high']:.4f})"
    )


def _confusion_table(report: Mapping[str, Any]) -> Table:
    labels = report["labels"]
    table = _table("label \\ answer", *labels, "recall")
    for label, counts in zip(labels, report["confusion"], strict=True):
        if sum(counts):
            recall = f"{report['recall'][label]['share']:.4f}" if label in report["recall"] else ""
            table.add_row(_cell(label), *map(str, counts), recall)
    return table


def _mistakes_table(mistakes: Sequence[Mapping[str, Any]]) -> Table:
    table = _table("picture", "label", "answer", "probability", "label's", "decision", "probe")
    for one in mistakes:
        decision = one["decision"] if one["because"] is None else f"{one['decision']} ({one['because']})"
        # As far as there is room for it, a path is in one piece.
        table.columns[0].min_width = min(_WIDEST_PATH, max(table.columns[0].min_width or 0, len(one["path"])))
        table.add_row(
            _cell(one["path"]),
            _cell(one["label"]),
            _cell(one["answer"]),
            f"{one['probability']:.4f}",
            f"{one['label_probability']:.4f}",
            _cell(decision),
            _cell(one["probe_answer"] or ""),
            style="red" if one["is_false_accept"] else None,
        )
    return table


def _table(*columns: str) -> Table:
    table = Table(show_edge=False, header_style="bold")
    for column in columns:
        # The end of a path tells pictures apart: it is folded, not cut off.
        table.add_column(_cell(column), overflow="fold")
    return table


def _cell(text: str) -> str:
    return escape(printable(text))


def _print(console: Console, text: str) -> None:
    console.print(text, markup=False, soft_wrap=True)
