"""Screenshots of the console on the demo's registry, for the documents.

``python -m examples.product_lines.screenshots docs/pictures`` does what the demo does, in ``--folder``,
tunes a second version of a task to compare, and takes the pictures with Debian's chromium. Where the demo has
left its folder, nothing of it is tuned again.
"""

import argparse
import io
import os
import shutil
import subprocess
import sys
from pathlib import Path

import httpx
from PIL import Image
from playwright.sync_api import Page, sync_playwright

from examples.product_lines.__main__ import HERE, make_token
from examples.product_lines.endpoint import Endpoint, free_port
from examples.product_lines.pictures import draw_tasks

SHIP = [sys.executable, "-c", "from orchestrator.cli.main import main; main()"]
TASK, LABEL = "brick-surface", "scratch"
SECOND_VERSION = """backbone: bundled
defaults: {{epochs: 4, min_steps: 10}}
tasks: [{{name: {task}, data: data/{task}, tags: {{family: surface}}}}]
"""
# Name of the picture, address.
PAGES = (
    ("fleet", "/fleet"),
    ("task", f"/tasks/{TASK}/about"),
    ("threshold", f"/tasks/{TASK}/threshold?label={LABEL}&value=0.9"),
    ("compare", f"/tasks/{TASK}/compare"),
    ("runs", "/runs"),
)
WIDTH, HEIGHT, COLOURS = 1280, 860, 96


def main() -> None:
    """Make the registry if it is not there, and take the pictures."""
    args = parse_arguments()
    folder = args.folder.resolve()
    environment = {**os.environ, "SHIP_HOME": str(folder / ".ship")}
    prepare(folder, environment)
    port, token = free_port(), make_token(environment)
    command = [*SHIP, "serve", "--console", str(port)]
    with Endpoint(command, {**environment, "SHIP_TOKEN": token}, folder / "serve.log"):
        # The console comes up after the endpoint.
        with httpx.Client(transport=httpx.HTTPTransport(retries=10), timeout=60.0) as client:
            client.get(f"http://127.0.0.1:{port}/sign-in").raise_for_status()
        take_all(f"http://127.0.0.1:{port}", token, folder, args.target)


def prepare(folder: Path, environment: dict[str, str]) -> None:
    """Tune the demo's tasks and a second version of one, as far as they are not there."""
    draw_tasks(folder / "data")
    shutil.copy(HERE / "manifest.yaml", folder / "manifest.yaml")
    (folder / "second.yaml").write_text(SECOND_VERSION.format(task=TASK))
    for name in ("manifest.yaml", "second.yaml"):
        # The gate keeps some from serving, which is status 3.
        subprocess.run([*SHIP, "tune", str(folder / name)], env=environment, check=False)


def take_all(url: str, token: str, folder: Path, target: Path) -> None:
    """Sign in, and take each page in light colours."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox", "--disable-gpu"]
        )
        page = browser.new_page(
            base_url=url, color_scheme="light", viewport={"width": WIDTH, "height": HEIGHT}
        )
        page.goto("/sign-in")
        page.get_by_label("Token").fill(token)
        page.keyboard.press("Enter")
        page.wait_for_url("**/fleet")
        for name, address in PAGES:
            page.goto(address, wait_until="networkidle")
            take(page, target / f"console-{name}.png")
        ask(page, next((folder / "data" / TASK / "test" / LABEL).glob("*.png")))
        take(page, target / "console-try.png")
        browser.close()


def ask(page: Page, picture: Path) -> None:
    """Ask the endpoint about a picture on the page Try."""
    page.goto(f"/try?task={TASK}")
    page.get_by_label("Picture").set_input_files(picture)
    page.get_by_role("button", name="Ask").click()
    page.get_by_alt_text("Attention of").scroll_into_view_if_needed()


def take(page: Page, file: Path) -> None:
    """Write what is in view, in few colours: a page is mostly one."""
    picture = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
    picture.quantize(COLOURS).save(file, optimize=True)
    print(f"{file}: {file.stat().st_size / 1000:.0f} KB")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m examples.product_lines.screenshots",
        description="Take screenshots of the console on the demo's registry.",
    )
    parser.add_argument("target", type=Path, help="folder of the pictures")
    parser.add_argument("--folder", type=Path, default=Path("demo-run"), help="folder of the demo")
    return parser.parse_args()


if __name__ == "__main__":
    main()
