"""A prompt as files: safetensors and JSON, stamped with digests. No pickle, ever.

    prompt.safetensors   the tensors
    prompt.json          the card (``ship.artifact.card``); names the sha256 of every other file
    record.json          history, affinity, confusion matrix: for people and the registry
    README.md            the same for a reader
    held_out.json        answers on the held-out images (``ship.artifact.held_out``); optional, serving needs
                         none

The sha256 of ``prompt.json`` is the digest of the whole artifact. A file that is read is not trusted: its
size is checked before it is parsed, and tensors against the shapes that the card implies.
"""

import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

from ship.artifact.card import CARD, README, RECORD, TENSORS, PromptCard, parse_json
from ship.artifact.held_out import HELD_OUT, MAX_HELD_OUT_BYTES
from ship.backbone import Backbone
from ship.decision.distance import DistanceModel
from ship.errors import ArtifactError, ConfigError, PromptTooLargeError, SlotsFullError
from ship.method.prompts import Prompt, count_attribute_groups
from ship.precision import dtype_name
from ship.runtime.baking import BakedPrompt, bake
from ship.runtime.runtime import Runtime
from ship.runtime.slots import Slot

__all__ = [
    "FILES",
    "PROBE_TOLERANCE",
    "LoadedPrompt",
    "ask_probe",
    "digest_of",
    "insert_verified",
    "load",
    "load_files",
    "probe_difference",
    "probe_image",
    "prompt_to_bytes",
    "read_tensors",
    "run_probe",
    "save",
]

FILES = (TENSORS, CARD, RECORD, README)
_MAX_BYTES = {
    TENSORS: 1 << 30,
    CARD: 16 << 20,
    RECORD: 64 << 20,
    README: 1 << 20,
    HELD_OUT: MAX_HELD_OUT_BYTES,
}
# Seven names need under a kilobyte; a header of megabytes is an attack on its parser.
_MAX_TENSOR_HEADER_BYTES = 64 << 10
# Largest difference of the probe's scores, in parts of their size: another processor adds in another order,
# and half precision rounds. Seen at most 0.014 in bfloat16 and 0.0022 in float16 over prompts on three
# backbones, of other prompts at least 0.21; the rest is for deeper backbones.
PROBE_TOLERANCE = {torch.float32: 2e-3, torch.float16: 2e-2, torch.bfloat16: 1e-1}


@dataclass(frozen=True, kw_only=True)
class LoadedPrompt:
    """An artifact that was read and passed all checks.

    Attributes:
        prompt: The tensors.
        card: Content of ``prompt.json``.
        digest: sha256 of ``prompt.json``.
        distance: Distance from the training images; None where the artifact has none.
    """

    prompt: Prompt
    card: PromptCard
    digest: str
    distance: DistanceModel | None = None


def digest_of(files: Mapping[str, bytes]) -> str:
    """The artifact's digest: sha256 of its card, which names the digests of its other files."""
    return hashlib.sha256(files[CARD]).hexdigest()


def describe_files(files: Mapping[str, bytes]) -> dict[str, dict[str, object]]:
    """The card's entries about the other files."""
    return {
        name: {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
        for name, content in sorted(files.items())
    }


def prompt_to_bytes(prompt: Prompt, distance: DistanceModel | None = None) -> bytes:
    """The content of ``prompt.safetensors``."""
    tensors = {**prompt.state_dict(), **({} if distance is None else distance.to_tensors())}
    return save_tensors({key: value.detach().cpu().contiguous() for key, value in tensors.items()})


def load_files(files: Mapping[str, bytes], digest: str | None = None) -> LoadedPrompt:
    """Read an artifact's files.

    Args:
        files: Name to content, ``FILES``; ``held_out.json`` is not needed, and its digest checked if it is
            there.
        digest: The expected digest, if it is known.

    Raises:
        ArtifactError: A file, key, shape, type, number or digest is not as expected.
    """
    _check_files(files)
    found = digest_of(files)
    if digest is not None and found != digest:
        raise ArtifactError(f"prompt.json: expected sha256 {digest}, found {found}; it was changed")
    card = PromptCard.from_json(files[CARD])
    described = describe_files({name: files[name] for name in files if name != CARD})
    if changed := [name for name in described if card.files.get(name) != described[name]]:
        raise ArtifactError([f"{name}: size or sha256 is not the card's; it was changed" for name in changed])
    tensors = read_tensors(files[TENSORS])
    of_distance = {key: tensors.pop(key) for key in list(tensors) if key.startswith("distance.")}
    prompt = _restore(card, tensors)
    return LoadedPrompt(
        prompt=prompt, card=card, digest=found, distance=_restore_distance(prompt, of_distance)
    )


def save(folder: str | os.PathLike[str], files: Mapping[str, bytes]) -> str:
    """Write an artifact into a folder, the card last; returns its digest."""
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    for name in sorted(files, key=lambda name: name == CARD):
        temporary = target / f".{name}.{os.getpid()}"
        temporary.write_bytes(files[name])
        temporary.replace(target / name)
    return digest_of(files)


def load(folder: str | os.PathLike[str]) -> LoadedPrompt:
    """Read an artifact from a folder.

    Raises:
        ArtifactError: See ``load_files``.
    """
    source = Path(folder)
    try:
        names = (*FILES, HELD_OUT) if (source / HELD_OUT).exists() else FILES
        sizes = {name: (source / name).stat().st_size for name in names}
        if large := [name for name, size in sizes.items() if size > _MAX_BYTES[name]]:
            raise ArtifactError([f"{source / name}: larger than {_MAX_BYTES[name]} bytes" for name in large])
        return load_files({name: (source / name).read_bytes() for name in names})
    except OSError as error:
        raise ArtifactError(f"{source}: not an artifact: {error}") from error


def probe_image(size: tuple[int, int], num_tiles: int = 1) -> Tensor:
    """A picture that every machine draws alike, uint8 ``T,3,H,W``: the fixed input of the stored probe.

    Tiles are shifted by a pixel each, so that their order and their maximum count.
    """
    y_H1, x_1W = torch.arange(size[0]).view(-1, 1), torch.arange(size[1]).view(1, -1)
    planes = [(7 * x_1W + 13 * y_H1 + (x_1W * y_H1) % 251 + 29 * channel) % 256 for channel in range(3)]
    image_3HW = torch.stack(planes).to(torch.uint8)
    return torch.stack([image_3HW.roll(tile, dims=-1) for tile in range(num_tiles)])


def run_probe(backbone: Backbone, baked: BakedPrompt) -> list[float]:
    """The scores that a baked prompt gives for the probe image, in float32."""
    padding_bytes = 4 * backbone.info.width
    runtime = Runtime(backbone, capacity_bytes=baked.num_bytes + padding_bytes)
    return ask_probe(runtime, runtime.insert(baked))


def insert_verified(
    runtime: Runtime, loaded: LoadedPrompt, make_room: Callable[[int], bool] | None = None
) -> Slot:
    """Insert a prompt that is about to serve, and check that it answers the probe as when it was tuned.

    Args:
        runtime: Runtime that is to serve it.
        loaded: The prompt.
        make_room: Called with the bytes that are lacking, while there is no room: evicts prompts, or returns
            False if too few can be evicted. Not called for a prompt that never fits.

    Raises:
        ArtifactError: It belongs to another backbone, cannot be served, or gives other scores.
        PromptTooLargeError: It is larger than the whole slot pool.
        SlotsFullError: There is no room for it.
    """
    _check_backbone(runtime.backbone, loaded)
    baked = bake(runtime.backbone, loaded.prompt)
    if runtime.dtype != torch.float32:
        # Half precision is too coarse to tell a wrong prompt from a right one.
        _check_probe(loaded, run_probe(runtime.backbone, baked), torch.float32)
    slot = _insert(runtime, baked, make_room)
    _check_probe(loaded, ask_probe(runtime, slot), runtime.dtype)
    return slot


def probe_difference(loaded: LoadedPrompt, scores: Sequence[float]) -> float:
    """Largest difference of scores for the probe image from those of the card, in parts of the latter's size.

    The size is one more than the largest of them; not a number where a score is none.
    """
    found, wanted = torch.tensor(scores), torch.tensor(loaded.card.probe["logits"])
    return float((found - wanted).abs().max() / (1.0 + wanted.abs().max()))


def _check_probe(loaded: LoadedPrompt, scores: Sequence[float], dtype: torch.dtype) -> None:
    difference, limit = probe_difference(loaded, scores), PROBE_TOLERANCE[dtype]
    if not difference <= limit:
        raise ArtifactError(
            f"prompt of task {loaded.card.task!r}: its scores for the probe image are off by "
            f"{difference:.3g} of their size in {dtype_name(dtype)}, expected at most {limit:g}; it would "
            "not answer as it did when it was tuned"
        )


def _check_backbone(backbone: Backbone, loaded: LoadedPrompt) -> None:
    expected, prompt = loaded.card.backbone["fingerprint"], loaded.prompt
    if expected != backbone.fingerprint:
        raise ArtifactError(
            f"prompt of task {loaded.card.task!r} belongs to backbone {loaded.card.backbone['name']!r} "
            f"({expected[:12]}, image size {loaded.card.backbone['image_size']}), not to "
            f"{backbone.name!r} ({backbone.fingerprint[:12]}, image size {list(backbone.image_size)}); load "
            "that backbone, or tune the task on this one"
        )
    # Nothing in the files ties these to the fingerprint.
    found = (prompt.depth, prompt.prototypes.shape[1])
    if found != (backbone.info.depth, backbone.info.width):
        raise ArtifactError(
            f"prompt of task {loaded.card.task!r}: expected {backbone.info.depth} layers of width "
            f"{backbone.info.width}, as its backbone has, found {found[0]} of width {found[1]}; "
            "it was changed"
        )


def _insert(runtime: Runtime, baked: BakedPrompt, make_room: Callable[[int], bool] | None) -> Slot:
    while True:
        try:
            return runtime.insert(baked)
        except PromptTooLargeError:
            raise
        except SlotsFullError as error:
            if make_room is None or not make_room(error.lacking_bytes):
                raise


def ask_probe(runtime: Runtime, slot: Slot) -> list[float]:
    """The scores that a slot gives for the probe image."""
    images_T3HW = probe_image(runtime.backbone.image_size, slot.num_tiles)
    scores: list[float] = runtime.infer(images_T3HW, [slot])[0].tolist()
    return scores


def _check_files(files: Mapping[str, bytes]) -> None:
    problems = [f"{name}: unknown file in an artifact" for name in sorted(set(files) - set(_MAX_BYTES))]
    problems += [f"{name}: missing from the artifact" for name in sorted(set(FILES) - set(files))]
    problems += [
        f"{name}: {len(files[name])} bytes, expected at most {limit}"
        for name, limit in _MAX_BYTES.items()
        if len(files.get(name, b"")) > limit
    ]
    if problems:
        raise ArtifactError(problems)


def read_tensors(content: bytes, name: str = TENSORS) -> dict[str, Tensor]:
    """Read safetensors, its header first by ourselves: the library takes duplicate keys and any size.

    Raises:
        ArtifactError: It is something else.
    """
    size = int.from_bytes(content[:8], "little")
    if len(content) < 8 or size > min(_MAX_TENSOR_HEADER_BYTES, len(content) - 8):
        raise ArtifactError(
            f"{name}: its header claims {size} bytes, expected at most {_MAX_TENSOR_HEADER_BYTES} "
            "and less than the file"
        )
    parse_json(content[8 : 8 + size], f"{name} header")
    try:
        tensors: dict[str, Tensor] = load_tensors(content)
    except SafetensorError as error:
        raise ArtifactError(f"{name}: {error}") from error
    return tensors


def _restore(card: PromptCard, tensors: Mapping[str, Tensor]) -> Prompt:
    prompt = _expected_prompt(card, tensors)
    wanted = prompt.state_dict()
    problems = [f"{TENSORS}: unknown tensor {key!r}" for key in sorted(set(tensors) - set(wanted))]
    problems += [f"{TENSORS}: missing tensor {key!r}" for key in sorted(set(wanted) - set(tensors))]
    for key in sorted(set(wanted) & set(tensors)):
        found, expected = tensors[key], wanted[key]
        if found.dtype != expected.dtype or found.shape != expected.shape:
            problems.append(
                f"{TENSORS}: {key}: expected {expected.dtype} {tuple(expected.shape)}, found {found.dtype} "
                f"{tuple(found.shape)}"
            )
        elif not bool(found.isfinite().all()):
            problems.append(f"{TENSORS}: {key}: holds NaN or infinity")
    if problems:
        raise ArtifactError(problems)
    # Copies: what was read shares the file's memory.
    prompt.load_tensors({key: tensor.clone() for key, tensor in tensors.items()})
    return prompt.requires_grad_(False)


def _restore_distance(prompt: Prompt, tensors: Mapping[str, Tensor]) -> DistanceModel | None:
    if not tensors:
        return None
    width = prompt.prototypes.shape[1]
    return DistanceModel.from_tensors(tensors, num_classes=prompt.num_classes, width=width)


def _expected_prompt(card: PromptCard, tensors: Mapping[str, Tensor]) -> Prompt:
    """A prompt of the shapes that the card implies, without memory; width, depth and R are the tensors' own.

    A few lines of JSON can imply terabytes.
    """
    prototypes, gate = tensors.get("prototypes"), tensors.get("gate")
    if prototypes is None or gate is None or prototypes.ndim != 2 or gate.ndim != 1:
        raise ArtifactError(f"{TENSORS}: expected tensors prototypes (R,D) and gate (L)")
    if prototypes.shape[0] > card.config.num_prototypes or not prototypes.shape[1]:
        raise ArtifactError(
            f"{TENSORS}: prototypes: expected at most {card.config.num_prototypes} of the backbone's width, "
            f"found shape {tuple(prototypes.shape)}"
        )
    if not prototypes.shape[0] and count_attribute_groups(card.config, len(card.level_starts)):
        raise ArtifactError(
            f"{TENSORS}: prototypes: expected at least 1 beside attribute prompts, found none"
        )
    try:
        with torch.device("meta"):
            return Prompt(
                card.config,
                level_starts=card.level_starts,
                depth=gate.numel(),
                prototypes_RD=prototypes.float(),
                num_classes=len(card.labels),
                head_layers=card.head_layers,
                num_tiles=card.view.num_tiles,
            )
    except ConfigError as error:
        raise ArtifactError(f"prompt.json: {error}") from error
