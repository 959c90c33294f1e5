"""The model card, its numbers filled in from the JSON files beside the weights, never by hand."""

import json
from pathlib import Path

__all__ = ["render_card"]

_TEMPLATE = """---
license: apache-2.0
library_name: timm
tags: [image-feature-extraction, timm]
---
# The bundled backbone

A small vision transformer ({depth} blocks, width {embed_dim}, {num_heads} heads, {img_size} px in patches of
{patch_size}, class token; {size_mb:.1f} MB in float16), so that everything here can be tried without a
download. Trained by `python -m ship.pretrain`. Licence: Apache-2.0.

**Data.** {images_drawn:,} pictures that the recipe draws itself: pen strokes, closed contours, fractals
(iterated function systems), surfaces with flaws, on noise, gratings, cells, brickwork and gradients. No
photograph and no third-party material: no rights and no faces of others.

**Objective.** {hidden_percent:.0f}% of the patches are hidden. For each patch, seen or hidden, the network
predicts the histograms of its gradient orientations, its mean colours and its contrast. From the class
token alone, one linear layer predicts the whole image's orientation grid, spectrum and colour layout, and
how far its patches stray from their mean.{views}{contents}

**Cost.** {images_seen:,} images in {num_steps:,} steps of {batch_size}: {cpu_minutes:.1f} core-minutes of
CPU time ({wall_minutes:.1f} minutes on the clock, on a machine shared with other work), matrix products in
{precision}.

**Probe.** Features: the frozen class token after the final norm. Test accuracy on real pictures, none of
which was trained on; mean of {num_seeds} splits; beside it the same network untrained. The flaws are drawn on
photographs, by other code than the flaws of the training pictures but of the same three kinds. `python -m
ship.pretrain probe` prints it again. One setting of the recipe, how far the image targets are whitened, was
chosen between two values by a probe of this kind on two splits.

| task | training images | test images | linear | linear, untrained | 5-NN | 5-NN, untrained |
| --- | --- | --- | --- | --- | --- | --- |
{probe_rows}

**Not for.** Photographs of things: it knows edges, textures and layout, but no objects, and sees {img_size} x
{img_size} pixels. For those take a timm name, such as `vit_base_patch16_224.augreg_in21k`.
"""

_VIEWS = """ Half of the images of a step are second views of the other
half (another framing, another light), and their class tokens are made to agree (VICReg, weight
{view_weight:g})."""
_CONTENTS = """ Another
linear layer tells from it what was drawn: which kinds of stroke, shape, flaw and texture, any number of them
in a picture (multi-label cross-entropy, weight {content_weight:g})."""


def render_card(folder: Path) -> str:
    """The card of the backbone in this folder.

    Args:
        folder: With ``config.json``, ``model.safetensors``, ``training.json`` and ``probe.json``.
    """
    config, training, probe = (
        json.loads((folder / name).read_text()) for name in ("config.json", "training.json", "probe.json")
    )
    weights = {name: training["config"].get(name, 0.0) for name in ("view_weight", "content_weight")}
    rows = [
        f"| {task['task']} | {task['num_train']} | {task['num_test']} | {task['linear']:.3f} "
        f"| {task['linear_untrained']:.3f} | {task['knn']:.3f} | {task['knn_untrained']:.3f} |"
        for task in probe["tasks"]
    ]
    return _TEMPLATE.format(
        **config["model_args"],
        images_drawn=training["images_drawn"],
        images_seen=training["images_seen"],
        num_steps=training["config"]["num_steps"],
        batch_size=training["config"]["batch_size"],
        views=_VIEWS.format(**weights) if weights["view_weight"] else "",
        contents=_CONTENTS.format(**weights) if weights["content_weight"] else " No labels.",
        hidden_percent=100 * training["config"]["hidden_share"],
        precision="bfloat16" if training["config"]["bfloat16"] else "float32",
        cpu_minutes=training["cpu_s"] / 60,
        wall_minutes=training["wall_s"] / 60,
        size_mb=(folder / "model.safetensors").stat().st_size / 1e6,
        num_seeds=len(probe["seeds"]),
        probe_rows="\n".join(rows),
    )
