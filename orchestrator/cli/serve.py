"""The command that serves: parses, calls, prints."""

import contextlib
import os

import click

from orchestrator.cli.output import Output

__all__ = ["serve"]


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", default=8000, show_default=True, type=click.IntRange(1, 65535), help="TCP port.")
@click.option("--backbone", default="bundled", show_default=True, help="As in a manifest.")
@click.option("--replicas", default=1, show_default=True, type=click.IntRange(min=1), help="Of the engine.")
@click.option(
    "--log-requests",
    type=click.Path(dir_okay=False),
    help="Append a JSON line for each request to this file.",
)
@click.option(
    "--prompt-memory",
    default=2.0,
    show_default=True,
    type=click.FloatRange(min=0.001),
    metavar="GB",
    help="Of each engine's device, for prompts; those used longest ago give way.",
)
@click.option(
    "--pin",
    "pinned",
    multiple=True,
    metavar="TASK",
    help="This task, or a pattern, never gives way; repeatable.",
)
@click.option(
    "--timeout",
    default=30.0,
    show_default=True,
    type=click.FloatRange(min=0.1),
    metavar="SECONDS",
    help="For one request; clients may ask for less.",
)
@click.option(
    "--haproxy",
    is_flag=True,
    help="HAProxy, which comes with Ray Serve, as ingress: more requests a second; see docs/serving.md.",
)
@click.option("--no-auth", is_flag=True, help="Let everybody who reaches it ask every task, without a token.")
@click.pass_obj
def serve(
    output: Output,
    host: str,
    port: int,
    backbone: str,
    replicas: int,
    log_requests: str | None,
    prompt_memory: float,
    pinned: tuple[str, ...],
    timeout: float,
    haproxy: bool,
    no_auth: bool,
) -> None:
    """Answer for every task that has a champion, from one backbone. Ctrl-C drains and ends.

    Which task a request means is said by its header Ship-Task, who asks by a token of `ship token create`.

    \b
    Examples:
      ship serve
      ship serve --no-auth
      ship serve --replicas 2 --prompt-memory 8 --pin 'line-1-*'
      curl -H "Authorization: Bearer $SHIP_TOKEN" -H 'Ship-Task: bottle-caps' \\
        --data-binary @cap.png http://127.0.0.1:8000/v1/predict
    """
    from orchestrator.serve.launch.haproxy import haproxy_ingress

    settings = output.settings()
    with haproxy_ingress(settings.ray_address) if haproxy else contextlib.nullcontext():
        # Ray Serve, which is imported here, reads the environment of the line above.
        from orchestrator.serve.launch.endpoint import serve_forever
        from orchestrator.serve.options import EngineOptions, Limits
        from orchestrator.settings import BYTES_A_GB

        serve_forever(
            settings,
            backbone_spec=backbone,
            host=host,
            port=port,
            num_replicas=replicas,
            # Another process writes it, with a working folder of its own.
            limits=Limits(
                timeout_s=timeout,
                request_log=None if log_requests is None else os.path.abspath(log_requests),
            ),
            options=EngineOptions(slot_bytes=round(prompt_memory * BYTES_A_GB), pinned=pinned),
            auth=not no_auth,
            on_ready=lambda url: output.out.print(f"Serving at {url} (Ctrl-C ends it)"),
        )
