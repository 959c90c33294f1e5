"""``make demo``: the whole main job, with the commands that a user types.

Draws the pictures, tunes all tasks with two workers, serves every task from one backbone, asks over HTTP in
mixed order, and prints a report. Everything is kept in one folder, ``demo-run/``.
"""

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

from rich.console import Console

from examples.product_lines.endpoint import Endpoint, ask, free_port
from examples.product_lines.pictures import draw_tasks
from examples.product_lines.report import print_invitation, print_results
from orchestrator.private_files import replace_private

HERE = Path(__file__).parent
SHIP = str(Path(sys.executable).parent / "ship")
TOKEN_NAME = "demo"
# All tasks are tuned, and the gate keeps some from serving.
EXIT_SOME_WAIT = 3


def main() -> None:
    """Run the demo; the exit status is 0 only if every task was tuned and every champion answered."""
    args = parse_arguments()
    # Without a terminal rich would cut the table to 80 columns.
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 140)
    started_s = time.monotonic()
    folder = args.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    environment = {**os.environ, "SHIP_HOME": str(folder / ".ship")}
    console.rule("Pictures")
    tasks = draw_tasks(folder / "data")
    shutil.copy(HERE / "manifest.yaml", folder / "manifest.yaml")
    console.print(f"{len(tasks)} tasks in {folder / 'data'}", soft_wrap=True)
    console.rule("ship tune manifest.yaml")
    tuned = subprocess.run([SHIP, "tune", str(folder / "manifest.yaml")], env=environment, check=False)
    if tuned.returncode not in (0, EXIT_SOME_WAIT):
        tuned.check_returncode()
    listed = json.loads(subprocess.check_output([SHIP, "ls", "--json"], env=environment))
    console.rule("ship token, ship serve")
    token = make_token(environment)
    console_port = free_port()
    command = [SHIP, "serve", *(["--console", str(console_port)] if args.keep else [])]
    # The console asks the endpoint with the same token.
    with Endpoint(command, {**environment, "SHIP_TOKEN": token}, folder / "serve.log") as endpoint:
        served = [row["task"] for row in listed if row["champion"]]
        answers = ask(endpoint.url, token, folder / "data", served)
        console.rule("Results")
        print_results(console, listed, answers)
        console.print(f"{time.monotonic() - started_s:.0f} s in all.")
        if args.keep:
            replace_private(folder / "token", token.encode())
            print_invitation(console, endpoint.url, f"http://127.0.0.1:{console_port}", folder, served[0])
            endpoint.wait()


def make_token(environment: dict[str, str]) -> str:
    """A token for all tasks and all that a console shows, new in each run of the demo."""
    listed = json.loads(subprocess.check_output([SHIP, "token", "ls", "--json"], env=environment))
    if any(row["name"] == TOKEN_NAME for row in listed):
        subprocess.check_call(
            [SHIP, "token", "revoke", TOKEN_NAME], env=environment, stdout=subprocess.DEVNULL
        )
    scope = ["--predict", "*", "--metrics", "--console", "admin"]
    command = [SHIP, "token", "create", TOKEN_NAME, *scope]
    return subprocess.check_output(command, env=environment, text=True).strip()


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m examples.product_lines",
        description="Tune nine tasks on real pictures, serve them from one backbone, ask over HTTP.",
    )
    parser.add_argument(
        "--keep", action="store_true", help="leave the endpoint and a console up until Ctrl-C"
    )
    parser.add_argument("--folder", type=Path, default=Path("demo-run"), help="where everything is kept")
    return parser.parse_args()


if __name__ == "__main__":
    # As Ctrl-C, which ends the endpoint; a script in the background has neither otherwise.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.default_int_handler)
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
    except subprocess.CalledProcessError as error:
        sys.exit(error.returncode)
