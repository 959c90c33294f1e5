"""The command `ship threshold`: the rule that a version decides by, and its expected figures."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import wraps
from typing import TYPE_CHECKING, Any

import click
from rich.markup import escape
from rich.table import Table

from orchestrator.cli.completion import task_argument
from orchestrator.cli.options import author_options, json_option
from orchestrator.cli.output import Output, format_time
from orchestrator.registry.plain_values import place_json, rule_json

if TYPE_CHECKING:
    from orchestrator.registry.thresholds import Standing, Wishes
    from orchestrator.store.documents.audit import Author
    from ship.decision.rule import DecisionRule

__all__ = ["rule_line", "threshold"]

_SHARE = click.FloatRange(0.0, 1.0, max_open=True)
_COSTS = {"escape": "escape", "false-reject": "false_reject", "unsure": "unsure"}
_MAX_CLASSES = 10
_WISH_FLAGS = (
    click.option(
        "--recall",
        "recalls",
        multiple=True,
        metavar="LABEL=SHARE",
        help="Promise that at least this share of LABEL's pictures is answered with it or `unsure`; 0 takes "
        "the promise back; repeatable.",
    ),
    click.option(
        "--cost",
        metavar="NAME=COST,...",
        help="Weigh errors: the cost of an `escape` (a bad part that is answered good), a `false-reject` "
        "and, if a person may look, of `unsure`; what is left out costs 1, `unsure` is then not weighed.",
    ),
    click.option("--good", metavar="LABEL", help="Label of the good parts [good, ok, normal or pass]."),
    click.option("--min-confidence", type=_SHARE, metavar="P", help="Least probability of a label."),
    click.option(
        "--false-alarms",
        type=click.FloatRange(0.0, 1.0, min_open=True, max_open=True),
        metavar="P",
        help="Share of the task's own pictures that may be taken for `far` from all training images.",
    ),
    click.option("--reset", is_flag=True, help="Go back to the rule that came with the version."),
)


def _wish_options(command: Callable[..., None]) -> Callable[..., None]:
    """The flags that say what a new rule is to keep to; they arrive as ``Wishes``, None if none is given."""

    @wraps(command)
    def with_wishes(
        *args: Any,
        recalls: tuple[str, ...],
        cost: str | None,
        good: str | None,
        min_confidence: float | None,
        false_alarms: float | None,
        reset: bool,
        **options: Any,
    ) -> None:
        from orchestrator.registry.thresholds import Wishes

        wishes = Wishes(
            recalls=_read_recalls(recalls),
            costs=_read_costs(cost),
            good=good,
            min_confidence=min_confidence,
            false_alarm_rate=false_alarms,
            from_own=reset,
        )
        is_given = wishes != Wishes(from_own=reset)
        command(*args, wishes=wishes if is_given else None, reset=reset, **options)

    with_flags: Callable[..., None] = with_wishes
    for flag in reversed(_WISH_FLAGS):
        with_flags = flag(with_flags)
    return with_flags


@click.command()
@task_argument
@click.option(
    "--version", type=click.IntRange(min=1), help="Version whose rule is meant [the one that serves]."
)
@_wish_options
@click.option("--dry-run", is_flag=True, help="Show what would change; change nothing.")
@author_options
@json_option
@click.pass_obj
def threshold(
    output: Output,
    task: str,
    version: int | None,
    wishes: "Wishes | None",
    reset: bool,
    dry_run: bool,
    author: "Author",
    as_json: bool,
) -> None:
    """Show or change the rule by which TASK decides, without tuning it again.

    A rule answers a label, or `unsure` and why. A new one is chosen on the version's answers about its
    held-out images; each of its figures is measured on images that the rule was not chosen on. What is not
    named stays as it is. The endpoint follows within seconds, and a version takes its rule along when it is
    promoted or rolled back.

    \b
    Examples:
      ship threshold bottle-caps
      ship threshold bottle-caps --recall scratch=0.99 --dry-run
      ship threshold bottle-caps --cost escape=50,false-reject=1,unsure=0.2 --reason 'audit of May'
      ship threshold bottle-caps --recall scratch=0 --min-confidence 0.8 --json
      ship threshold bottle-caps --version 4 --reset
    """
    is_change = wishes is not None or reset
    if dry_run and not is_change:
        raise click.UsageError("--dry-run shows what other options would change; give one, such as --recall")
    thresholds = output.thresholds(author)
    before = thresholds.standing(task, version, may_be_broken=reset)
    if not is_change:
        _show_standing(output, before, as_json=as_json)
        return
    rule = None if wishes is None else thresholds.choose(before, wishes)
    is_same = rule is None and before.digest is None
    after = before if dry_run or is_same else thresholds.set(before, rule)
    chosen = before.own if rule is None else rule
    _show_change(output, before, after, chosen, dry_run=dry_run, as_json=as_json)


def _read_recalls(texts: Sequence[str]) -> dict[str, float]:
    found: dict[str, float] = {}
    for text in texts:
        label, equals, share = text.rpartition("=")
        number = _number(share)
        if not equals or not label or not 0.0 <= number < 1.0:
            raise click.BadParameter(
                f"{text!r}: expected a label and a share from 0 to below 1, such as scratch=0.99",
                param_hint="--recall",
            )
        if label in found:
            raise click.BadParameter(f"{label!r} is named twice", param_hint="--recall")
        found[label] = number
    return found


def _read_costs(text: str | None) -> dict[str, float]:
    found: dict[str, float] = {}
    for part in [] if text is None else text.split(","):
        name, _, cost = part.strip().partition("=")
        number = _number(cost)
        if name not in _COSTS or not 0.0 <= number < math.inf or _COSTS[name] in found:
            raise click.BadParameter(
                f"{part!r}: expected {', '.join(_COSTS)}, each once and with a cost from 0, such as "
                "escape=50,false-reject=1",
                param_hint="--cost",
            )
        found[_COSTS[name]] = number
    return found


def _number(text: str) -> float:
    try:
        return float(text) if text.isascii() else math.nan
    except ValueError:
        return math.nan


def rule_line(standing: "Standing") -> str:
    """The rule that decides, and its origin, in words."""
    if standing.digest is None:
        return "decides by the rule that came with it"
    name = f"decides by rule {standing.digest[:12]}"
    if (stored := standing.stored) is None:
        return f"{name}, which cannot be read"
    reason = f": {stored.reason}" if stored.reason else ""
    return f"{name}, set {format_time(stored.time_s)} by {stored.by} on {stored.host}{reason}"


def _show_standing(output: Output, standing: "Standing", *, as_json: bool) -> None:
    if as_json:
        output.print_json({**place_json(standing), **rule_json(standing.rule, standing)})
        return
    assert standing.rule is not None, "a broken one was refused"
    output.print_line(f"{standing.task}: version {standing.version} {rule_line(standing)}.")
    _print_terms(output, standing.rule)
    _print_figures(output, {"expected": standing.rule.expected})


def _show_change(
    output: Output,
    before: "Standing",
    after: "Standing",
    chosen: "DecisionRule",
    *,
    dry_run: bool,
    as_json: bool,
) -> None:
    if as_json:
        stands = None if dry_run else after
        values = {"before": rule_json(before.rule, before), "after": rule_json(chosen, stands)}
        output.print_json({**place_json(before), "dry_run": dry_run, **values})
        return
    place = f"{before.task}: version {before.version}"
    if dry_run:
        output.print_line(f"{place} would decide by this rule; nothing was changed.")
    elif after is before:
        output.print_line(f"{place} {rule_line(after)} already; nothing was changed.")
    else:
        output.print_line(f"{place} {rule_line(after)}, from now on.")
    _print_terms(output, chosen)
    expected = {} if before.rule is None else before.rule.expected
    _print_figures(output, {"before": expected, "after": chosen.expected})


def _print_terms(output: Output, rule: "DecisionRule") -> None:
    for term in _terms(rule):
        output.print_line(f"  {term}")


def _terms(rule: "DecisionRule") -> Iterator[str]:
    """What a rule keeps to, in words."""
    for label, recall in rule.recalls.items():
        yield f"at least {recall:.4g} of {label} is answered with it or unsure, with 95% confidence"
    if (costs := rule.costs) is not None:
        unsure = "" if costs.unsure is None else f", unsure {costs.unsure:.4g}"
        errors = f"an escape costs {costs.escape:.4g}, a false reject {costs.false_reject:.4g}"
        yield f"{errors}{unsure}; good parts are {costs.good}"
        if rule.frequencies is not None:
            yield "costs are weighed for classes that are as frequent as in the held-out images"
    if rule.min_confidence > 0.0:
        yield f"unsure below a probability of {rule.min_confidence:.4g}"
    if rule.max_distance is not None:
        yield f"unsure beyond a distance of {rule.max_distance:.4g} from all training images"
    yield f"temperature of the probabilities {rule.temperature:.4g}"
    if rule.frequencies is not None:
        yield (
            "probabilities are those of equally frequent classes if the task is balanced, else of classes "
            "that are as frequent as in the training images"
        )


def _print_figures(output: Output, columns: Mapping[str, Mapping[str, Any]]) -> None:
    """Print the figures of rules side by side."""
    rows = {name: _figures(expected) for name, expected in columns.items()}
    names = list(dict.fromkeys(name for figures in rows.values() for name in figures))
    if not names:
        output.print_line("What it decides was not measured: the version was tuned by an earlier ship.")
        return
    table = Table(show_edge=False, header_style="bold")
    table.add_column("on held-out images", overflow="fold")
    for name in columns:
        table.add_column(name, overflow="fold")
    for name in names:
        table.add_row(escape(name), *(escape(figures.get(name, "")) for figures in rows.values()))
    output.out.print(table)
    if any(expected.get("cross_fitted") for expected in columns.values()):
        output.print_line(
            "Shares with their 95% interval, cross-fitted: each image was decided by a rule that was chosen "
            "on the others.",
        )


def _figures(expected: Mapping[str, Any]) -> dict[str, str]:
    """Figures of a rule in words, by their name; empty if nothing was measured."""
    if not expected.get("cross_fitted"):
        return {}
    found = {"images": str(expected["num_images"])}
    for name, title in (
        ("unsure", "unsure"),
        ("far", "of these far from all training images"),
        ("accuracy", "right, of all that get a label"),
        ("false_rejects", "false rejects, of good parts"),
        ("escapes", "escapes, of bad parts"),
    ):
        if name in expected:
            found[title] = _share(expected[name])
    recall, caught = expected.get("recall", {}), expected.get("caught", {})
    for label in list(recall)[:_MAX_CLASSES]:
        found[f"{label}: answered with it"] = _share(recall[label])
        found[f"{label}: with it or unsure"] = _share(caught[label])
    if "cost" in expected:
        found["mean cost of a picture"] = f"{expected['cost']:.4g}"
    return found


def _share(figure: Mapping[str, Any]) -> str:
    if figure["share"] is None:
        return "none held out"
    share, low, high = figure["share"], figure["low"], figure["high"]
    return f"{share:.3f} ({low:.3f}-{high:.3f}), {figure['num']} of {figure['of']}"
