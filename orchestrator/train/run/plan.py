"""The plan of a run in its folder, ``plan.json``, from which other terminals tell what was to be done."""

from typing import Any

from orchestrator.planning.deadlines import forecast_s
from orchestrator.planning.plan import Plan

__all__ = ["plan_values"]


def plan_values(plan: Plan, num_workers: int | None) -> dict[str, Any]:
    """The plan as plain values, without settings: those are in the manifest.

    Args:
        plan: The plan.
        num_workers: Workers that the run has at most; None if its cluster decides that.
    """
    return {
        "backbone": plan.backbone,
        "num_workers": num_workers,
        "estimate_s": plan.estimate_s,
        "wall_s": None if num_workers is None else forecast_s(plan.to_tune, num_workers),
        "to_tune": [
            {"task": one.spec.name, "num_images": one.spec.num_images, "estimate_s": one.estimate_s}
            for one in plan.to_tune
        ],
        "to_reuse": [one.spec.name for one in plan.to_reuse],
        "refused": [{"task": one.name, "reasons": list(one.reasons)} for one in plan.refused],
        "warnings": list(plan.warnings),
    }
