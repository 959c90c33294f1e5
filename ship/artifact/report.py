"""Report on answers to labelled images, as plain values: what a page and a terminal print, and nothing else.

Shapes: B images, C classes.
"""

from typing import Any

import torch

from ship.artifact.held_out import HeldOut
from ship.decision.expectation import expected_figures
from ship.decision.mistakes import find_good_label, find_mistakes, find_narrow
from ship.decision.rule import Decision, DecisionRule
from ship.errors import ConfigError
from ship.evaluation.accuracy import calibration_error, evaluate_logits

__all__ = ["report_answers"]


def report_answers(answers: HeldOut, rule: DecisionRule, good: str | None = None) -> dict[str, Any]:
    """Figures and mistakes. Shares have 95% Wilson intervals and counts, as ``expected_figures`` gives them.

    Args:
        answers: Class scores and labels.
        rule: Calibrates the probabilities and makes the decisions.
        good: Label of the parts that are in order; None to tell by its name.

    Raises:
        ConfigError: ``good`` is no label.
    """
    if good is not None and good not in answers.labels:
        raise ConfigError(f"good label {good!r}: expected one of {', '.join(answers.labels)[:300]}")
    good = good or find_good_label(answers.labels)
    likeliest = DecisionRule(temperature=rule.temperature)
    said = likeliest.decide_all(answers.labels, answers.logits_BC)
    figures = expected_figures(answers.labels, answers.labels_B, said, good)
    decisions = rule.decide_all(answers.labels, answers.logits_BC, answers.distances_B)
    logits_BC = torch.tensor(answers.logits_BC, dtype=torch.float64).reshape(-1, len(answers.labels))
    labels_B = torch.tensor(answers.labels_B, dtype=torch.int64)
    evaluation = evaluate_logits(logits_BC, labels_B)
    log_C = rule.log_frequencies(answers.labels)
    natural_BC = logits_BC / rule.temperature + torch.tensor(log_C or 0.0, dtype=torch.float64)
    return {
        "labels": list(answers.labels),
        "good": good,
        "num_images": answers.num_images,
        "num_kept": len(answers),
        "accuracy": figures["accuracy"],
        "balanced_accuracy": evaluation.balanced_accuracy,
        "recall": figures["recall"],
        "escapes": figures.get("escapes"),
        "false_rejects": figures.get("false_rejects"),
        "confusion": evaluation.confusion_CC,
        "calibration_error": calibration_error(natural_BC, labels_B),
        "decision": _report_rule(answers, rule, decisions, good),
        "mistakes": _report_mistakes(answers, rule, decisions, good),
        "narrowest": _report_narrow(answers, rule),
    }


def _report_rule(
    answers: HeldOut, rule: DecisionRule, decisions: list[Decision], good: str | None
) -> dict[str, Any]:
    """What the decision rule makes of the images, and its settings."""
    settings = {name: value for name, value in rule.to_dict().items() if name not in ("schema", "expected")}
    good = good if rule.costs is None else rule.costs.good
    figures = expected_figures(answers.labels, answers.labels_B, decisions, good)
    return {"rule": settings, **figures}


def _report_mistakes(
    answers: HeldOut, rule: DecisionRule, decisions: list[Decision], good: str | None
) -> list[dict[str, Any]]:
    labels = answers.labels
    probe = answers.probe_logits_BC
    mistakes = find_mistakes(
        answers.labels_B,
        answers.logits_BC,
        None if good is None else labels.index(good),
        rule.temperature,
    )
    found = []
    for one in mistakes:
        decision = decisions[one.place]
        probe_C = None if probe is None else probe[one.place]
        found.append(
            {
                "place": one.place,
                "path": answers.paths[one.place],
                "digest": answers.digests[one.place],
                "label": labels[one.truth],
                "answer": labels[one.answer],
                "probability": one.probability,
                "label_probability": one.truth_probability,
                "decision": decision.label,
                "because": decision.because,
                "probe_answer": None if probe_C is None else labels[probe_C.index(max(probe_C))],
                "is_false_accept": one.is_false_accept,
            }
        )
    return found


def _report_narrow(answers: HeldOut, rule: DecisionRule) -> list[dict[str, Any]]:
    """Right answers with the least lead over the next class."""
    found = []
    for place in find_narrow(answers.labels_B, answers.logits_BC):
        p_C = rule.probabilities(answers.logits_BC[place])
        first, second = sorted(range(len(p_C)), key=answers.logits_BC[place].__getitem__, reverse=True)[:2]
        found.append(
            {
                "place": place,
                "path": answers.paths[place],
                "label": answers.labels[first],
                "probability": p_C[first],
                "next": answers.labels[second],
                "next_probability": p_C[second],
            }
        )
    return found
