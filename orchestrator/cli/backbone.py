"""The commands `ship backbone push` and `ship backbone ls`: backbones in the store."""

import click

from orchestrator.cli.options import json_option
from orchestrator.cli.output import Output

__all__ = ["backbone"]


@click.group()
def backbone() -> None:
    """Backbones in the store, for machines that reach no model hub.

    \b
    Examples:
      ship backbone push vit_base_patch16_224.augreg_in21k
      ship serve --backbone store:0123456789abcdef
      ship backbone ls --json
    """


@backbone.command()
@click.argument("spec")
@json_option
@click.pass_obj
def push(output: Output, spec: str, as_json: bool) -> None:
    """Put the backbone SPEC, as in a manifest, into the store: configuration and safetensors.

    \b
    Examples:
      ship backbone push bundled
      ship backbone push ./my-vit --json
    """
    from orchestrator.store.backbones import push_backbone, spec_of
    from ship.backbone import load_backbone

    found = load_backbone(spec)
    is_new = push_backbone(output.objects(), found)
    if as_json:
        output.print_json(
            {"spec": spec_of(found.fingerprint), "fingerprint": found.fingerprint, "is_new": is_new}
        )
        return
    said = "is in the store" if is_new else "was in the store already"
    output.print_line(f"{spec_of(found.fingerprint)}: {found.name} {said}.")


@backbone.command(name="ls")
@json_option
@click.pass_obj
def list_all(output: Output, as_json: bool) -> None:
    """List the backbones that the store holds.

    \b
    Example:
      ship backbone ls --json
    """
    from orchestrator.store.backbones import list_backbones, spec_of

    held = list(list_backbones(output.objects()))
    if as_json:
        output.print_json([{"spec": spec_of(one), "fingerprint": one} for one in held])
        return
    for one in held:
        output.print_line(spec_of(one))
