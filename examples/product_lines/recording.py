"""Recording of a terminal: plan, tune, list and ask about the demo's tasks, as one self-contained SVG.

``python -m examples.product_lines.recording docs/pictures/terminal.svg`` runs the commands for real, in a
folder that it removes at the end, and draws what they printed.
"""

import io
import os
import pty
import re
import shutil
import struct
import subprocess
import sys
import tempfile
import termios
from fcntl import ioctl
from pathlib import Path

from rich._export_format import CONSOLE_SVG_FORMAT
from rich.console import Console
from rich.terminal_theme import SVG_EXPORT_THEME
from rich.text import Text

from examples.product_lines.endpoint import Endpoint
from examples.product_lines.pictures import draw_tasks

SHIP = [sys.executable, "-c", "from orchestrator.cli.main import main; main()"]
COLUMNS, ROWS = 112, 60
# rich's template loads a font from another host, and names its own.
SELF_CONTAINED = re.sub(r"<!--.*?-->|@font-face \{\{.*?\}\}", "", CONSOLE_SVG_FORMAT, flags=re.DOTALL)
FORMAT = SELF_CONTAINED.replace("Fira Code, monospace", "ui-monospace, 'DejaVu Sans Mono', Menlo, monospace")


def main() -> None:
    """Record the session into the file that the command line names."""
    console = Console(record=True, width=COLUMNS, file=io.StringIO(), force_terminal=True)
    folder = Path(tempfile.mkdtemp(prefix="ship-recording-"))
    try:
        record(console, folder)
    finally:
        shutil.rmtree(folder)
    console.save_svg(sys.argv[1], title="ship", theme=SVG_EXPORT_THEME, code_format=FORMAT, unique_id="ship")


def record(console: Console, folder: Path) -> None:
    """Run the commands one after another."""
    draw_tasks(folder / "data")
    shutil.copy(Path(__file__).parent / "manifest.yaml", folder / "lines.yaml")
    shutil.copy(next((folder / "data" / "digits" / "test" / "7").iterdir()), folder / "7.png")
    environment = {**os.environ, "SHIP_HOME": str(folder / ".ship"), "TERM": "xterm-256color"}
    for command in ("plan lines.yaml --tag family=surface", "tune lines.yaml", "ls"):
        show(console, command, folder, environment)
    with Endpoint([*SHIP, "serve", "--no-auth"], environment, folder / "serve.log") as endpoint:
        environment["SHIP_URL"] = endpoint.url
        show(console, "predict digits 7.png", folder, environment)


def show(console: Console, command: str, folder: Path, environment: dict[str, str]) -> None:
    """Run ``ship`` with these arguments in a terminal, and add what it left on the screen."""
    console.print(Text.assemble(("$ ", "bold green"), (f"ship {command}", "bold")))
    print(f"ship {command}", file=sys.stderr)
    lines = Text.from_ansi(run_in_terminal([*SHIP, *command.split()], folder, environment)).split("\n")
    for line in lines:
        line.rstrip()
        if line.plain:
            console.print(line, no_wrap=True, overflow="crop")
    console.print()


def run_in_terminal(command: list[str], folder: Path, environment: dict[str, str]) -> str:
    """Everything that a command leaves on a terminal: after the last line that it erased itself."""
    ours, theirs = pty.openpty()
    ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
    process = subprocess.Popen(command, cwd=folder, env=environment, stdout=theirs, stderr=theirs)
    os.close(theirs)
    printed = b""
    while True:
        try:
            chunk = os.read(ours, 65536)
        except OSError:  # how Linux says that the other end is closed
            break
        if not chunk:
            break
        printed += chunk
    os.close(ours)
    if process.wait():
        sys.exit(f"{' '.join(command)} ended with {process.returncode}:\n{printed.decode()}")
    return printed.decode().replace("\r\n", "\n").rsplit("\x1b[2K", 1)[-1]


if __name__ == "__main__":
    main()
