"""Commands for tokens, which authenticate the clients of endpoints."""

import time
from typing import TYPE_CHECKING, Any, TypeVar

import click
from rich.markup import escape
from rich.table import Table

from orchestrator.cli.options import author_options, json_option
from orchestrator.cli.output import Output, format_time, printable
from orchestrator.durations import describe_seconds, parse_duration

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from orchestrator.store.documents.audit import Author
    from orchestrator.store.documents.token_changes import NewToken
    from orchestrator.store.documents.tokens import BrokenToken, ConsoleScope, Secret, Token, Tokens

__all__ = ["token"]

_Result = TypeVar("_Result")


@click.group()
def token() -> None:
    """Create, list, rotate and revoke the tokens that authenticate clients of endpoints.

    They are kept in the store, as hashes: every endpoint on it follows within seconds, without a restart.

    \b
    Examples:
      ship token create line-1 --predict 'line-1-*' --expires 90d
      ship token ls
      ship token rotate line-1 --grace 1h
      ship token revoke line-1
    """


@token.command()
@click.argument("name")
@click.option(
    "--predict",
    multiple=True,
    metavar="PATTERN",
    help="Allow requests to these tasks: a name, '*'; repeatable.",
)
@click.option("--metrics", is_flag=True, help="Allow reading /metrics.")
@click.option("--admin", is_flag=True, help="Allow everything.")
@click.option(
    "--console",
    type=click.Choice(["look", "decide", "admin"]),
    help="Allow signing in to `ship console`, to see those tasks, to decide on them, or to change who may.",
)
@click.option("--expires", metavar="DURATION", help="Lifetime: 12h, 90d, 52w from now [never expires].")
@author_options
@json_option
@click.pass_obj
def create(
    output: Output,
    name: str,
    predict: tuple[str, ...],
    metrics: bool,
    admin: bool,
    console: "ConsoleScope | None",
    expires: str | None,
    author: "Author",
    as_json: bool,
) -> None:
    """Make a token called NAME and print it: this is the only time that it can be seen.

    \b
    Examples:
      ship token create line-1 --predict 'line-1-*' --expires 90d
      export SHIP_TOKEN=$(ship token create me --predict '*')
      ship token create prometheus --metrics
      ship token create maria --predict 'line-1-*' --console decide
      ship token create ops --admin --json | jq -r .token
    """
    from orchestrator.store.documents.token_changes import create_token
    from orchestrator.store.documents.tokens import Scope

    lifetime_s = None if expires is None else _duration(expires, "--expires")
    scope = Scope(predict=predict, metrics=metrics, admin=admin, console=console)
    made = _change(
        output,
        "token-create",
        author,
        lambda tokens: create_token(tokens, name, scope, now_s=time.time(), lifetime_s=lifetime_s),
    )
    _print_new(output, made, as_json)


@token.command(name="ls")
@json_option
@click.pass_obj
def list_tokens(output: Output, as_json: bool) -> None:
    """List all tokens with their permissions and expiry, and those that are broken with their problem.

    \b
    Examples:
      ship token ls
      ship token ls --json | jq -r '.[] | select(.admin) | .name'
    """
    found = output.prompt_store().read_tokens()
    tokens = {} if found is None else dict(sorted(found[0].by_name.items()))
    broken = {} if found is None else dict(sorted(found[0].broken.items()))
    now_s = time.time()
    if as_json:
        output.print_json(
            [_token_json(name, one, now_s) for name, one in tokens.items()]
            + [_broken_json(name, one) for name, one in broken.items()]
        )
    elif tokens or broken:
        output.out.print(_table(tokens, broken, now_s))
        for one in broken.values():
            output.err.print(printable(one.problem), style="red", markup=False, soft_wrap=True)
    else:
        output.out.print("There is no token yet: `ship token create NAME --predict '*'` makes one.")


@token.command()
@click.argument("name")
@click.option(
    "--grace",
    default="0",
    show_default=True,
    metavar="DURATION",
    help="The old secret stays valid for so long: 1h.",
)
@author_options
@json_option
@click.pass_obj
def rotate(output: Output, name: str, grace: str, author: "Author", as_json: bool) -> None:
    """Give token NAME a new secret and print it; what it is good for stays. A broken one is mended.

    It lives as long as the old one was made for, from now on. The old one ends at once, unless --grace gives
    its clients time to change.

    \b
    Examples:
      ship token rotate line-1
      ship token rotate line-1 --grace 1h
    """
    from orchestrator.store.documents.token_changes import rotate_token

    grace_s = 0.0 if grace.strip("smhdw") == "0" else _duration(grace, "--grace")
    made = _change(
        output,
        "token-rotate",
        author,
        lambda tokens: rotate_token(tokens, name, now_s=time.time(), grace_s=grace_s),
    )
    _print_new(output, made, as_json)
    if len(made.token.secrets) > 1:
        output.err.print(f"The old secret stays valid for {describe_seconds(grace_s)} at most.")


@token.command()
@click.argument("name")
@author_options
@json_option
@click.pass_obj
def revoke(output: Output, name: str, author: "Author", as_json: bool) -> None:
    """Take token NAME away, with all its secrets; a broken one, too.

    \b
    Example:
      ship token revoke line-1
    """
    from orchestrator.store.documents.token_changes import revoke_token

    taken = _change(output, "token-revoke", author, lambda tokens: revoke_token(tokens, name))
    ids = [secret.token_id for secret in getattr(taken, "secrets", ())]
    if as_json:
        output.print_json({"name": name, "revoked": ids})
        return
    said = f"{printable(name)} ({', '.join(ids) or 'broken'}) is revoked; endpoints follow within seconds."
    output.out.print(said, markup=False, soft_wrap=True)


def _change(
    output: Output, action: str, author: "Author", change: "Callable[[Tokens], tuple[Tokens, _Result]]"
) -> _Result:
    from orchestrator.store.audit.log import AuditLog
    from orchestrator.store.documents.token_changes import TokenLog, change_tokens

    store = output.prompt_store()
    return change_tokens(store, change, TokenLog(log=AuditLog(store), action=action, author=author))


def _duration(text: str, flag: str) -> float:
    try:
        return parse_duration(text)
    except ValueError as error:
        raise click.BadParameter(f"{text!r}: {error}", param_hint=flag) from None


def _print_new(output: Output, made: "NewToken", as_json: bool) -> None:
    """The token alone on standard output, for ``$(...)``; what to do with it beside."""
    newest = made.token.secrets[0]
    if as_json:
        output.print_json(
            {"name": made.name, "token": made.text, **_scope_json(made.token), **_secret_json(newest)}
        )
    else:
        click.echo(made.text)
    until = "" if newest.expires_s is None else f", good until {format_time(newest.expires_s)}"
    output.err.print(
        f"This is {made.name} ({newest.token_id}){until}. It is shown this once, and kept as a hash only. "
        "Clients read it from SHIP_TOKEN, or send it as `Authorization: Bearer ship_...`.",
        markup=False,
        soft_wrap=True,
    )


def _table(tokens: "Mapping[str, Token]", broken: "Mapping[str, BrokenToken]", now_s: float) -> Table:
    table = Table(show_edge=False, header_style="bold")
    for column in ("name", "id", "may ask", "may also", "created", "expires"):
        table.add_column(column)
    for name, one in tokens.items():
        also = [word for word in ("metrics", "admin") if getattr(one.scope, word)]
        also += [f"console: {one.scope.console}"] if one.scope.console else []
        for secret in one.secrets:
            table.add_row(
                name,
                secret.token_id,
                ", ".join(one.scope.predict).replace("[", r"\["),
                ", ".join(also),
                format_time(secret.created_s),
                "never" if secret.expires_s is None else format_time(secret.expires_s),
                style=None if secret.is_live(now_s) else "red",
            )
    for name in broken:
        table.add_row(escape(printable(name)), "broken", style="red")
    return table


def _token_json(name: str, one: "Token", now_s: float) -> dict[str, Any]:
    secrets = [{**_secret_json(secret), "is_live": secret.is_live(now_s)} for secret in one.secrets]
    return {"name": name, **_scope_json(one), "secrets": secrets, "problem": None}


def _broken_json(name: str, one: "BrokenToken") -> dict[str, Any]:
    granted = {"predict": [], "metrics": False, "admin": False, "console": None}
    return {"name": name, **granted, "secrets": [], "problem": one.problem}


def _scope_json(one: "Token") -> dict[str, Any]:
    scope = one.scope
    return {
        "predict": list(scope.predict),
        "metrics": scope.metrics,
        "admin": scope.admin,
        "console": scope.console,
    }


def _secret_json(secret: "Secret") -> dict[str, Any]:
    expires = None if secret.expires_s is None else format_time(secret.expires_s)
    return {"id": secret.token_id, "created": format_time(secret.created_s), "expires": expires}
