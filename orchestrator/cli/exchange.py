"""Commands on adapters of other programs: import, export."""

import os
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from orchestrator.cli.completion import task_argument
from orchestrator.cli.options import author_options, image_size_option, json_option, read_source
from orchestrator.cli.output import Output
from orchestrator.private_files import replace_like_folder
from orchestrator.registry.plain_values import version_json

if TYPE_CHECKING:
    from orchestrator.registry.exchange import Admission
    from orchestrator.registry.versions import VersionInfo
    from orchestrator.store.documents.audit import Author

__all__ = ["COMMANDS"]


@click.command(name="import")
@click.argument("folder", type=click.Path())
@click.option("--task", required=True, metavar="NAME", help="Task that it becomes a version of.")
@click.option(
    "--backbone",
    default="bundled",
    show_default=True,
    help="Backbone that it was trained on, as in a manifest.",
)
@image_size_option
@click.option(
    "--labels",
    metavar="FILE|A,B,C",
    help="Class names in the order of its outputs: a file of one a line, or a list "
    "[labels.txt of FOLDER, else the data's, else 0, 1, ...].",
)
@click.option(
    "--head",
    type=click.Path(),
    metavar="FILE",
    help="Safetensors file with the head's weight and bias, for an adapter that holds none.",
)
@click.option(
    "--data",
    metavar="PATH|JSON",
    help="Data to measure it on: a path, or a mapping as a task's `data` in a manifest.",
)
@click.option("--no-thumbnails", is_flag=True, help="Keep no pictures of mistakes in what is published.")
@click.option("--promote", is_flag=True, help="Serve it whatever the gate says.")
@author_options
@json_option
@click.pass_obj
def import_adapter(
    output: Output,
    folder: str,
    task: str,
    backbone: str,
    image_size: int | None,
    labels: str | None,
    head: str | None,
    data: str | None,
    no_thumbnails: bool,
    promote: bool,
    author: "Author",
    as_json: bool,
) -> None:
    """Make the PEFT LoRA adapter in FOLDER a version of a task, served beside all others.

    FOLDER holds adapter_config.json and adapter_model.safetensors of a timm vision transformer. It answers as
    it does in PEFT; what cannot be reproduced exactly, such as DoRA, is refused by name.

    With --data, the accuracy on its test images and the linear probe's decide at the gate, as for a tuned
    prompt; the data must name its test images, as the adapter may have been trained on any others. Without
    it, the version stays @challenger until `ship promote`, or --promote.

    \b
    Examples:
      ship import lora-caps --task bottle-caps --labels good,scratched,dented
      ship import lora-caps --task bottle-caps --backbone vit_base_patch16_224.augreg_in21k --data data/caps
      ship import lora-caps --task bottle-caps --head head.safetensors --promote
    """
    from orchestrator.names import check_task_name

    check_task_name(task)
    key, artifact = _make_artifact(
        task,
        folder,
        backbone,
        image_size,
        labels,
        head,
        data,
        thumbnails=not no_thumbnails,
        max_pixels=output.settings().max_pixels,
    )
    author = replace(author, reason=author.reason or "ship import --promote")
    admission = _admit(output, task, key, artifact, promote=promote, author=author)
    if as_json:
        version = version_json(admission.version)
        output.print_json({"task": task, "is_new": admission.is_new, **version})
    else:
        _print_admission(output, task, admission)


@click.command()
@task_argument
@click.argument("folder", type=click.Path())
@click.option("--format", "format_", type=click.Choice(["peft"]), required=True, help="Form of the adapter.")
@click.option("--version", type=click.IntRange(min=1), help="Version to write [the champion].")
@json_option
@click.pass_obj
def export(output: Output, task: str, folder: str, format_: str, version: int | None, as_json: bool) -> None:
    """Write a version of TASK into FOLDER as an adapter for another program.

    PEFT loads it onto the timm model that is its backbone, made with as many classes as labels.txt has
    lines, and gives the same scores. Only low ranks with a head on the last class token are a PEFT adapter:
    tune with `kind: lora` and `head: cls`.

    \b
    Examples:
      ship export bottle-caps lora-caps --format peft
      ship export bottle-caps lora-caps --format peft --version 3
    """
    from orchestrator.registry.exchange import export_version

    target = Path(folder).resolve()
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise click.BadParameter(f"{folder}: expected no such folder, or an empty one", param_hint="FOLDER")
    store = output.prompt_store()
    number, files = export_version(task, version, store=store, registry=output.registry())
    _write_folder(target, files)
    if as_json:
        paths = [str(target / name) for name in files]
        output.print_json({"task": task, "version": number, "format": format_, "files": paths})
        return
    output.print_line(f"{task}: version {number} is in {folder} ({', '.join(files)}).")


def _write_folder(target: Path, files: Mapping[str, bytes]) -> None:
    """Write a new folder whole or not at all; into an empty one, which may be a mount, each file."""
    if target.exists():
        for name, content in files.items():
            replace_like_folder(target / name, content)
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{target.name}-", dir=target.parent) as temporary:
        folder = Path(temporary) / target.name
        folder.mkdir()
        for name, content in files.items():
            (folder / name).write_bytes(content)
        folder.replace(target)


def _make_artifact(
    task: str,
    folder: str,
    backbone: str,
    image_size: int | None,
    labels: str | None,
    head: str | None,
    data: str | None,
    *,
    thumbnails: bool,
    max_pixels: int,
) -> tuple[str, dict[str, bytes]]:
    from ship.artifact.importing import import_adapter as make
    from ship.artifact.peft import read_folder
    from ship.backbone import load_backbone
    from ship.data import load_task_data

    # What is cheap to find wrong comes first.
    files, names = read_folder(folder, head), _read_labels(labels)
    # Test images are not cut from the data, unless the mapping says so.
    source = None if data is None else read_source(data, "--data", test_fraction=0.0)
    frozen = load_backbone(backbone, image_size=image_size)
    images = None
    if source is not None:
        images = load_task_data(
            source,
            image_size=frozen.image_size,
            interpolation=frozen.interpolation,
            max_pixels=max_pixels,
        )
    return make(task, frozen, files, labels=names, data=images, thumbnails=thumbnails)


def _admit(
    output: Output, task: str, key: str, artifact: Mapping[str, bytes], *, promote: bool, author: "Author"
) -> "Admission":
    from orchestrator.registry.exchange import admit
    from orchestrator.registry.recorder import Recorder

    store, registry = output.prompt_store(), output.registry(may_create=True)
    recorder = Recorder(registry, store, output.settings().spool)
    return admit(
        task,
        key,
        artifact,
        store=store,
        registry=registry,
        recorder=recorder,
        promote=promote,
        author=author,
    )


def _print_admission(output: Output, task: str, admission: "Admission") -> None:
    version, before = admission.version, "" if admission.is_new else ", as it was before"
    output.print_line(f"{task}: version {version.version} is {_roles(version)}{before}.")
    output.print_line(f"v{version.version}: {version.gate_reason}")
    if admission.waits:
        output.print_line(f"{task}: it waits for an approval by another person: `ship approve {task}`.")
    elif "accuracy" not in version.metrics and "champion" not in version.aliases:
        output.print_line(
            f"Measure it with --data, or serve it as it is: `ship promote {task} {version.version}`."
        )


def _read_labels(text: str | None) -> tuple[str, ...] | None:
    from ship.artifact.importing import split_labels

    if text is None:
        return None
    if os.path.isfile(text):
        return split_labels(Path(text).read_bytes())
    return tuple(name.strip() for name in text.split(","))


def _roles(version: "VersionInfo") -> str:
    return ", ".join(f"@{alias}" for alias in version.aliases) or "without an alias"


COMMANDS = (import_adapter, export)
