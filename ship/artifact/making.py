"""Making of an artifact's files from the result of a tuning."""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from ship.artifact.card import CARD, README, RECORD, TENSORS, PromptCard, backbone_entry
from ship.artifact.evidence import gather_held_out
from ship.artifact.files import describe_files, prompt_to_bytes, run_probe
from ship.artifact.held_out import HELD_OUT, HeldOut
from ship.backbone import Backbone
from ship.data import TaskData
from ship.data.fingerprint import digest_images, fingerprint_split
from ship.data.pixel_copies import find_leaked
from ship.decision.distance import DistanceModel
from ship.decision.fitting import FittedDecision, fit_decision
from ship.decision.rule import DecisionRule
from ship.errors import ArtifactError
from ship.evaluation.accuracy import Evaluation
from ship.evaluation.attention_change import AttentionChange, measure_attention
from ship.findings import find_warnings
from ship.method.prompts import Prompt
from ship.runtime.baking import bake
from ship.settings.config import TuneConfig
from ship.settings.view import DEFAULT_VIEW, View
from ship.tuning.kept_search import trial_values
from ship.tuning.run import TuneResult
from ship.tuning.search import SearchResult

__all__ = ["held_out_answers", "held_out_metrics", "make_artifact", "seal"]

_NUM_LEAKED_NAMED = 10


def make_artifact(
    task: str,
    backbone: Backbone,
    data: TaskData,
    result: TuneResult,
    found: SearchResult | None = None,
    *,
    task_key: str | None = None,
    fitted: FittedDecision | None = None,
    thumbnails: bool = True,
) -> dict[str, bytes]:
    """All files of an artifact, name to content.

    Args:
        task: Name of the task.
        backbone: Backbone that it was tuned on.
        data: Images and labels that it was tuned with.
        result: Result of the tuning.
        found: Result of the search for its settings.
        task_key: sha256 over data, settings, backbone and method version, of a task that a manifest planned.
        fitted: Result of ``fit_decision``, if at hand.
        thumbnails: Whether small pictures of mistakes are kept among the held-out answers.
    """
    attention = measure_attention(backbone, result.prompt, data.held_out.images_B3HW)
    fitted = fitted or fit_decision(
        backbone, result.prompt, data, result.outputs, balanced_scores=result.balanced_scores
    )
    metrics = _metrics(data, result, attention, found, fitted.rule)
    return seal(
        task,
        backbone,
        result.prompt,
        labels=data.labels,
        metrics=metrics,
        record=_record(data, result, attention, found),
        readme=_readme(task, backbone, data, result, metrics, found, fitted.rule),
        data_fingerprint=data.fingerprint,
        task_key=task_key,
        view=data.view,
        decision=fitted.rule,
        distance=fitted.distance,
        held_out=gather_held_out(
            data,
            result.outputs.logits_BC,
            result.preparation.probe_logits_BC,
            fitted.distances_B,
            thumbnails=thumbnails,
        ),
    )


def seal(
    task: str,
    backbone: Backbone,
    prompt: Prompt,
    *,
    labels: tuple[str, ...],
    metrics: Mapping[str, float],
    record: Mapping[str, Any],
    readme: str,
    data_fingerprint: str,
    task_key: str | None,
    view: View = DEFAULT_VIEW,
    decision: DecisionRule | None = None,
    distance: DistanceModel | None = None,
    held_out: HeldOut | None = None,
) -> dict[str, bytes]:
    """The files of an artifact from their contents: adds sizes on the device, probe scores and digests.

    Raises:
        ArtifactError: The prompt's scores for the probe image are not finite.
    """
    baked = bake(backbone, prompt)
    logits = run_probe(backbone, baked)
    if not all(map(math.isfinite, logits)):
        raise ArtifactError(f"prompt of task {task!r}: expected finite scores for the probe image")
    files = {
        TENSORS: prompt_to_bytes(prompt, distance),
        RECORD: json.dumps(record).encode(),
        README: readme.encode(),
    }
    if held_out is not None:
        files[HELD_OUT] = held_out.to_json()
    card = PromptCard(
        task=task,
        task_key=task_key,
        backbone=backbone_entry(backbone.info),
        config=prompt.config,
        level_starts=prompt.level_starts,
        head_layers=prompt.head_layers,
        view=view,
        decision=decision or DecisionRule(),
        labels=labels,
        metrics={**metrics, **{f"{part}_bytes": size for part, size in baked.bytes_by_part.items()}},
        data_fingerprint=data_fingerprint,
        probe={"image": "lattice-1", "logits": logits},
        files=describe_files(files),
    )
    return {**files, CARD: card.to_json()}


def held_out_metrics(
    data: TaskData,
    evaluation: Evaluation,
    attention: AttentionChange,
    *,
    probe_accuracy: float,
    probe_balanced_accuracy: float,
) -> dict[str, float]:
    """Metrics that are measured on the held-out images."""
    recalls = [recall for recall in evaluation.recalls if recall is not None]
    return {
        "accuracy": evaluation.accuracy,
        "accuracy_low": evaluation.low,
        "accuracy_high": evaluation.high,
        "probe_accuracy": probe_accuracy,
        "balanced_accuracy": evaluation.balanced_accuracy,
        "probe_balanced_accuracy": probe_balanced_accuracy,
        "min_recall": min(recalls, default=0.0),
        "calibration_error": round(evaluation.calibration_error, 6),
        "attention_distance": round(attention.distance, 6),
        "attention_entropy": round(attention.entropy, 6),
        "attention_entropy_bare": round(attention.bare_entropy, 6),
        "num_test": len(data.held_out.labels_B),
    }


def held_out_answers(data: TaskData, evaluation: Evaluation, probe_right: str) -> dict[str, Any]:
    """Label of each held-out image, and whether prompt and probe got it right: for paired comparisons.

    The fingerprint tells whether two versions answered the same images, whatever they were tuned with, and
    the digests which images both answered.
    """
    return {
        "fingerprint": fingerprint_split(data.labels, data.held_out),
        "images": digest_images(data.labels, data.held_out),
        "labels": data.held_out.labels_B.tolist(),
        "right": evaluation.right,
        "probe_right": probe_right,
    }


def _metrics(
    data: TaskData,
    result: TuneResult,
    attention: AttentionChange,
    found: SearchResult | None,
    rule: DecisionRule,
) -> dict[str, float]:
    """Metrics of a tuning: what it reached on the held-out images, and what it cost."""
    return {
        **held_out_metrics(
            data,
            result.evaluation,
            attention,
            probe_accuracy=result.preparation.probe_accuracy,
            probe_balanced_accuracy=result.preparation.probe_balanced_accuracy,
        ),
        **_calibrated(rule),
        "num_train": len(data.train.labels_B),
        "num_params": result.prompt.num_trained(),
        "num_levels": result.prompt.num_levels,
        "num_tiles": data.num_tiles,
        "epochs": _num_epochs(result),
        "tuning_s": round(result.tuning_s, 3),
        **_search_costs(found),
    }


def _search_costs(found: SearchResult | None) -> dict[str, float]:
    """What the search cost; nothing where that is not known."""
    if found is None:
        return {"search_passes": 0, "search_s": 0.0}
    if found.num_passes is None:
        return {}
    return {"search_passes": found.num_passes, "search_s": round(found.tuning_s, 3)}


def _calibrated(rule: DecisionRule) -> dict[str, float]:
    """The calibration error with the classes' frequencies, on images that neither was fitted on."""
    errors = rule.expected.get("calibration_error")
    return {} if errors is None else {"calibration_error": errors["after"]}


def _record(
    data: TaskData, result: TuneResult, attention: AttentionChange, found: SearchResult | None
) -> dict[str, Any]:
    # Where one picture may lie in two splits, it is measured on, and told.
    leaked = list(data.leaked) or find_leaked(data)
    return {
        "search": [trial_values(trial) for trial in (found.trials if found else ())],
        "choice": _choice(result, found),
        "instead_of": asdict(result.instead_of) if result.instead_of else None,
        "learning_curve": result.preparation.learning_curve,
        "history": [asdict(report) for report in result.history],
        "affinity": result.preparation.affinity,
        "threshold": result.preparation.threshold,
        "level_starts": list(result.prompt.level_starts),
        "gate": result.prompt.gate.tolist(),
        "confusion": result.evaluation.confusion_CC,
        "held_out": held_out_answers(data, result.evaluation, result.preparation.probe_right),
        "labels": list(data.labels),
        "recall": result.evaluation.recalls,
        "train_counts": data.train.labels_B.bincount(minlength=len(data.labels)).tolist(),
        "balanced_scores": result.balanced_scores,
        "leaked": {
            "count": len(leaked),
            "paths": leaked[:_NUM_LEAKED_NAMED],
            "left_out": bool(data.leaked),
        },
        "attention": asdict(attention),
        "time_s": result.history[-1].time_s,
    }


def _decision_of(rule: DecisionRule) -> str:
    if rule.max_distance is None:
        return "likeliest class"
    far = rule.expected.get("far")
    alarms = "" if far is None else f" (false alarms {far['false_alarm_rate']:.4f})"
    return f"likeliest class, `unsure` beyond distance {rule.max_distance:.3g}{alarms}"


def _num_epochs(result: TuneResult) -> int:
    """Epochs that the tuning took; a linear probe takes no step."""
    if result.instead_of is not None:
        return len(result.instead_of.history)
    return 0 if result.prompt.config.kind == "probe" else len(result.history)


def _choice(result: TuneResult, found: SearchResult | None) -> str:
    reasons = (found.reason if found else "", result.instead_of.reason if result.instead_of else "")
    return " ".join(filter(None, reasons))


def _kind_of(config: TuneConfig) -> str:
    low_rank = f", rank {config.rank} on {config.low_rank_on}" if config.has_low_rank else ""
    return f"{config.kind}, head {config.head}{low_rank}"


def _view_of(view: View) -> str:
    crop = "whole picture" if view.crop is None else f"crop {list(view.crop)}"
    tiles = f", tiles {view.tiles} with overlap {view.tile_overlap:g}" if view.num_tiles > 1 else ""
    bits = "" if view.bits == "auto" else f", {view.bits} bits"
    decode = "" if view.decode == "full" else f", {view.decode} decoding"
    return f"{crop}{tiles}, fit {view.fit}{bits}{decode}"


def _readme(
    task: str,
    backbone: Backbone,
    data: TaskData,
    result: TuneResult,
    metrics: Mapping[str, float],
    found: SearchResult | None,
    rule: DecisionRule,
) -> str:
    config = result.prompt.config
    warnings = "".join(f"\n**Warning:** {warning}.\n" for warning in find_warnings(metrics))
    reasons = _choice(result, found)
    choice = f"\nChoice of settings: {reasons}\n" if reasons else ""
    labels = ", ".join(data.labels[:20]) + (", ..." if len(data.labels) > 20 else "")
    return f"""# {task}

A SHIP prompt for the frozen backbone `{backbone.name}` (`{backbone.fingerprint[:12]}`).

| | |
| --- | --- |
| classes | {len(data.labels)}: {labels} |
| held-out accuracy | {metrics["accuracy"]:.4f} (95% interval {metrics["accuracy_low"]:.4f} to \
{metrics["accuracy_high"]:.4f}, {metrics["num_test"]:.0f} images) |
| linear probe, same images | {metrics["probe_accuracy"]:.4f} |
| lowest recall of a class | {metrics["min_recall"]:.4f} |
| calibration error | {metrics["calibration_error"]:.4f} at temperature {rule.temperature:.3g} |
| decision | {_decision_of(rule)} |
| attention of CLS that the prompt moves | {metrics["attention_distance"]:.4f} (entropy \
{metrics["attention_entropy"]:.4f}, bare {metrics["attention_entropy_bare"]:.4f}) |
| training images | {metrics["num_train"]:.0f} |
| trained parameters | {metrics["num_params"]:.0f} |
| levels start at layers | {", ".join(map(str, result.prompt.level_starts))} \
(threshold {result.preparation.threshold:.4f}) |
| kind | {_kind_of(config)} |
| view of a picture | {_view_of(data.view)} |
| settings | K={config.num_independent}, start {config.start}, learning rate {config.learning_rate:g}, \
{metrics["epochs"]:.0f} epochs, seed {config.seed} |
{warnings}{choice}
`prompt.json` names every file's sha256; load it with `ship.load`.
"""
