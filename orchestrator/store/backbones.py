"""Backbones in the store, for machines without a network: ``backbones/<fingerprint>/`` as timm's own folder.

A spec names one by ``store:`` and the first digits of its fingerprint. It is loaded as safetensors and JSON,
and its fingerprint is computed anew: what a store holds under a name is that backbone, or an error.
"""

import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.errors import StoreError
from orchestrator.store.objects.open import open_objects
from orchestrator.store.objects.protocol import ObjectStore

if TYPE_CHECKING:
    from ship.backbone import Backbone

__all__ = ["config_key", "list_backbones", "load_backbone_of", "push_backbone", "spec_of", "weights_key"]

_PREFIX, _SCHEME = "backbones/", "store:"
_SHOWN_DIGITS, _LEAST_DIGITS = 16, 8
_FINGERPRINT = re.compile(r"[0-9a-f]{64}")
_WEIGHTS, _CONFIG = "model.safetensors", "config.json"
_MAX_BYTES = {_WEIGHTS: 16 << 30, _CONFIG: 1 << 20}


def weights_key(fingerprint: str) -> str:
    """Key of a backbone's weights."""
    return f"{_PREFIX}{fingerprint}/{_WEIGHTS}"


def config_key(fingerprint: str) -> str:
    """Key of a backbone's configuration, which is written last: without it the backbone is not there yet."""
    return f"{_PREFIX}{fingerprint}/{_CONFIG}"


def spec_of(fingerprint: str) -> str:
    """The spec by which a backbone of the store is named."""
    return f"{_SCHEME}{fingerprint[:_SHOWN_DIGITS]}"


def list_backbones(objects: ObjectStore) -> Iterator[str]:
    """Fingerprints of the backbones that a store holds, in order.

    Raises:
        StoreError: The store cannot be read.
    """
    for key in objects.list(_PREFIX):
        fingerprint = key.removeprefix(_PREFIX).partition("/")[0]
        if key == config_key(fingerprint) and _FINGERPRINT.fullmatch(fingerprint):
            yield fingerprint


def push_backbone(objects: ObjectStore, backbone: "Backbone") -> bool:
    """Write a backbone at its own image size; False if the store holds it.

    Raises:
        StoreError: The store cannot be written.
    """
    if backbone.fingerprint in list_backbones(objects):
        return False
    with tempfile.TemporaryDirectory(prefix="ship-backbone-") as folder:
        backbone.save(Path(folder))
        for name, key in ((_WEIGHTS, weights_key), (_CONFIG, config_key)):
            objects.put(key(backbone.fingerprint), (Path(folder) / name).read_bytes())
    return True


def load_backbone_of(spec: str, store_url: str | None, *, image_size: int | None = None) -> "Backbone":
    """A backbone of the store, or else any that ``ship.backbone.load_backbone`` knows.

    Args:
        spec: ``store:FINGERPRINT``, of which the first 8 digits will do, or see ``ship.backbone_spec``.
        store_url: URL of the store; None for none.
        image_size: Height and width of its input in pixels; None for its own.

    Raises:
        BackboneError: It cannot be loaded.
        StoreError: The store cannot be read, holds no such backbone, or another one under its fingerprint.
    """
    from ship.backbone import load_backbone

    if not spec.startswith(_SCHEME):
        return load_backbone(spec, image_size=image_size)
    if store_url is None:
        raise StoreError(f"backbone {spec!r}: there is no store here to read it from")
    objects = open_objects(store_url)
    fingerprint = _find(objects, spec)
    with tempfile.TemporaryDirectory(prefix="ship-backbone-") as parent:
        folder = Path(parent) / fingerprint[:_SHOWN_DIGITS]
        folder.mkdir()
        for name, max_bytes in _MAX_BYTES.items():
            (folder / name).write_bytes(
                objects.get(f"{_PREFIX}{fingerprint}/{name}", max_bytes=max_bytes).data
            )
        found = load_backbone(str(folder))
        if found.fingerprint != fingerprint:
            raise StoreError(
                f"backbone {spec!r}: what {objects.url} holds under {fingerprint[:_SHOWN_DIGITS]} is "
                f"backbone {found.fingerprint[:_SHOWN_DIGITS]}; delete it there and push it again"
            )
        return found if image_size is None else load_backbone(str(folder), image_size=image_size)


def _find(objects: ObjectStore, spec: str) -> str:
    digits = spec.removeprefix(_SCHEME)
    held = list(list_backbones(objects))
    found = [one for one in held if len(digits) >= _LEAST_DIGITS and one.startswith(digits)]
    if len(found) != 1:
        shown = ", ".join(map(spec_of, held[:5])) or "none"
        raise StoreError(
            f"backbone {spec!r}: {len(found)} backbones of {objects.url} have a fingerprint that starts so, "
            f"of {len(held)} ({shown}); expected at least {_LEAST_DIGITS} digits of one; `ship backbone "
            "push` adds one"
        )
    return found[0]
