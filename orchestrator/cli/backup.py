"""The commands `ship backup` and `ship restore`."""

import sys
import time
from typing import TYPE_CHECKING, Any

import click

from orchestrator.cli.options import json_option
from orchestrator.cli.output import EXIT_FAILED, Output, format_size, format_time

if TYPE_CHECKING:
    from orchestrator.backup.layout import Manifest
    from orchestrator.backup.taking import Taken
    from orchestrator.store.objects.protocol import ObjectStore

__all__ = ["COMMANDS"]


@click.command()
@click.argument("place", metavar="FOLDER|URL")
@click.option("--metadata", is_flag=True, help="Only what cannot be rebuilt: no artifacts, no backbones.")
@click.option(
    "--keep",
    type=click.IntRange(min=1),
    metavar="N",
    help="Remove older backups than the last N of each kind, full and --metadata, and what only they hold; "
    "none dated after now [keep all].",
)
@click.option("--store-only", is_flag=True, help="Leave MLflow out: its database has a backup of its own.")
@click.option(
    "--verify", is_flag=True, help="Read the copies that are there, too, and write damaged ones again."
)
@json_option
@click.pass_obj
def backup(
    output: Output,
    place: str,
    metadata: bool,
    keep: int | None,
    store_only: bool,
    verify: bool,
    as_json: bool,
) -> None:
    """Copy store, registry and audit log to FOLDER or URL, while endpoints and tunings go on.

    The place holds any number of backups, each content once: a later one copies what is new. A backup that
    was ended before its end is none, and is said to be none; what it copied spares the next one time. It
    holds hashes of tokens, no secret, and thumbnails of held-out pictures. A copy in the place that has not
    its size is written again, with --verify each that has not its digest. The exit status is 1 if something
    in the store is damaged or missing, or a copy is that was not written again; the backup is taken all the
    same.

    \b
    Examples:
      ship backup /mnt/backup/ship
      ship backup s3://backups/ship --keep 30
      ship backup /mnt/backup/ship --verify
      ship backup /mnt/backup/ship --metadata --json | jq -r .id
    """
    from orchestrator.backup.pruning import prune_backups
    from orchestrator.backup.taking import take_backup
    from orchestrator.registry.copying import copy_registry
    from orchestrator.store.objects.open import open_objects

    target, registry = open_objects(place), output.registry()
    with output.err.status("copying"):
        taken = take_backup(
            output.objects(),
            target,
            lambda: None if store_only else copy_registry(registry, output.prompt_store()),
            kind="metadata" if metadata else "all",
            verify=verify,
        )
        removed = () if keep is None else prune_backups(target, keep, taken=taken.manifest.id)
    misdated = _find_misdated(target)
    for id_ in misdated:
        folder = f"{target.url}/backups/{id_}"
        _warn(
            output, id_, f"it neither counts for --keep nor goes by it; if its date is wrong, delete {folder}"
        )
    if as_json:
        told = {
            "num_copied": taken.num_copied,
            "num_copied_bytes": taken.num_copied_bytes,
            "rewritten": taken.rewritten,
            "damage": taken.damage,
            "damaged_copies": taken.damaged_copies,
            "removed": removed,
            "misdated": misdated,
        }
        output.print_json({**_manifest_json(taken.manifest), **told})
    else:
        _print_taken(output, taken, removed)
    if taken.damage or taken.damaged_copies:
        sys.exit(EXIT_FAILED)


@click.command()
@click.argument("place", metavar="FOLDER|URL")
@click.option(
    "--backup",
    "id_",
    metavar="ID",
    help="The backup [the last full one that was finished, none dated later than now].",
)
@click.option("--verify", is_flag=True, help="Check all digests and the audit log; write nothing.")
@click.option("--store-only", is_flag=True, help="Leave MLflow as it is.")
@click.option("--force", is_flag=True, help="Restore to a store or an MLflow's file that is there, too.")
@json_option
@click.pass_obj
def restore(
    output: Output, place: str, id_: str | None, verify: bool, store_only: bool, force: bool, as_json: bool
) -> None:
    """Write the last full backup in FOLDER or URL into an empty store and an empty registry.

    They are those that SHIP_STORE, SHIP_HOME and MLFLOW_TRACKING_URI name. A newer backup of --metadata is
    named, and taken with --backup, or where there is no full one. A restoration that was ended goes
    on when the same command is run again. The catalog is written last: an endpoint serves nothing before all
    is there. --verify ends with status 1 if anything is damaged, and names it.

    \b
    Examples:
      ship restore /mnt/backup/ship --verify
      ship --store s3://models/ship restore s3://backups/ship
      ship restore /mnt/backup/ship --backup 20261127T030000Z-0123abcd --store-only
    """
    from orchestrator.backup.restoring import restore_backup
    from orchestrator.registry.copying import restore_registry
    from orchestrator.store.objects.open import open_objects

    target = open_objects(place)
    manifest = _choose(output, target, id_)
    if verify:
        _verify(output, target, manifest, as_json)
        return
    registry = output.registry(may_create=True)
    with output.err.status("restoring"):
        restored = restore_backup(
            target,
            manifest,
            output.objects(),
            None if store_only else lambda copy: restore_registry(registry, copy, force=force),
            force=force,
        )
    if as_json:
        output.print_json({**_manifest_json(manifest), **vars(restored)})
        return
    output.print_line(f"Backup {manifest.id} is restored to {output.objects().url}: {_describe(manifest)}.")
    output.print_line(f"{restored.num_written} objects were written, the others were there.")
    if not restored.has_registry:
        output.print_line("No registry was restored: `ship sync --adopt` once MLflow has its versions.")


def _print_taken(output: Output, taken: "Taken", removed: tuple[str, ...]) -> None:
    output.print_line(f"Backup {taken.manifest.id} is taken: {_describe(taken.manifest)}.")
    output.print_line(f"{taken.num_copied} objects, {format_size(taken.num_copied_bytes)} were new.")
    if removed:
        output.print_line(f"Removed: {', '.join(removed)}.")
    for key in taken.rewritten:
        output.print_line(f"written again, its copy was damaged: {key}", style="yellow")
    for problem in taken.damage:
        output.print_line(f"damaged in the store: {problem}", style="red")
    for problem in taken.damaged_copies:
        output.print_line(f"damaged in the place: {problem}", style="red")


def _choose(output: Output, target: "ObjectStore", id_: str | None) -> "Manifest":
    """The backup of that id, or the last one, after what was passed over was named."""
    from orchestrator.backup.layout import read_last, read_manifest

    if id_ is not None:
        return read_manifest(target, id_)
    last = read_last(target)
    for other in _find_misdated(target):
        is_taken = other == last.manifest.id
        said = (
            "it is taken, as no other is there" if is_taken else f"it is not taken; --backup {other} does so"
        )
        _warn(output, other, said)
    for other in last.newer[-1:]:
        line = (
            f"Backup {other} is newer than the last full one, {last.manifest.id}, and holds metadata alone: "
            f"it is not taken; --backup {other} does so."
        )
        output.err.print(line, style="yellow", markup=False, soft_wrap=True)
    return last.manifest


def _find_misdated(target: "ObjectStore") -> tuple[str, ...]:
    from orchestrator.backup.layout import find_backups, find_misdated

    return find_misdated(find_backups(target).done, time.time())


def _warn(output: Output, id_: str, said: str) -> None:
    line = f"Backup {id_} is dated later than now, by this machine's clock: {said}."
    output.err.print(line, style="yellow", markup=False, soft_wrap=True)


def _verify(output: Output, target: Any, manifest: "Manifest", as_json: bool) -> None:
    from orchestrator.backup.soundness import verify_backup

    with output.err.status("reading the backup"):
        problems = verify_backup(target, manifest)
    if as_json:
        output.print_json({**_manifest_json(manifest), "problems": problems})
    else:
        for problem in problems:
            output.print_line(problem, style="red")
        state = f"{len(problems)} problems" if problems else "nothing is missing or changed"
        output.print_line(f"Backup {manifest.id}: {_describe(manifest)}; {state}.")
    if problems:
        sys.exit(EXIT_FAILED)


def _describe(manifest: "Manifest") -> str:
    registry = "no registry" if manifest.registry is None else f"registry as {manifest.registry.form}"
    what = "metadata" if manifest.kind == "metadata" else "all"
    size = format_size(manifest.num_bytes)
    return f"{what}, {len(manifest.objects)} objects, {size}, {registry}, of {format_time(manifest.made_s)}"


def _manifest_json(manifest: "Manifest") -> dict[str, Any]:
    return {
        "id": manifest.id,
        "kind": manifest.kind,
        "made_s": manifest.made_s,
        "store": manifest.store,
        "num_objects": len(manifest.objects),
        "num_bytes": manifest.num_bytes,
        "registry": None if manifest.registry is None else manifest.registry.form,
    }


COMMANDS = (backup, restore)
