"""Pages of the console as a browser sees them: their addresses, and whatever goes wrong on one."""

from collections.abc import Iterator
from importlib import import_module
from pkgutil import iter_modules
from typing import Any
from urllib.parse import urlsplit

from axe_playwright_python.sync_playwright import Axe
from fastapi.routing import APIRoute
from playwright.sync_api import BrowserContext, ConsoleMessage, Dialog, Page, Request, Response

from orchestrator.console import pages

__all__ = ["Watch", "find_faults", "page_paths"]

# Values of the parameters in addresses, and what some pages are asked for beside.
VALUES = {"task": "bolts", "run": "tune-1"}
QUERIES = {"/tasks/{task}/picture": "?place=0", "/tasks/{task}/nearest": "?place=0"}


def page_paths() -> list[str]:
    """Addresses of all pages, each of which has its data beside it as JSON."""
    routers = (import_module(f"{pages.__name__}.{one.name}").router for one in iter_modules(pages.__path__))
    paths = {route.path for router in routers for route in router.routes if isinstance(route, APIRoute)}
    return sorted(path.format(**VALUES) + QUERIES.get(path, "") for path in paths if f"{path}.json" in paths)


class Watch:
    """Notes of what goes wrong in a browser, whichever page it shows.

    Attributes:
        faults: Errors in the console (which tell of blocked content, too), of scripts, of requests, requests
            to other hosts, and dialogs.

    Args:
        context: The browser's context.
        url: URL of the console.
    """

    def __init__(self, context: BrowserContext, url: str) -> None:
        self.faults: list[str] = []
        self._host = urlsplit(url).netloc
        context.on("page", self._follow)
        context.on("request", self._note_request)
        context.on("response", self._note_response)

    def _follow(self, page: Page) -> None:
        page.on("console", self._note_message)
        page.on("pageerror", lambda error: self.faults.append(f"{page.url}: {error}"))
        page.on("dialog", self._note_dialog)

    def _note_message(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.faults.append(f"{message.location['url']}: {message.text}")

    def _note_dialog(self, dialog: Dialog) -> None:
        self.faults.append(f"a dialog: {dialog.message}")
        dialog.dismiss()

    def _note_request(self, request: Request) -> None:
        place = urlsplit(request.url)
        if place.scheme not in ("data", "blob") and place.netloc != self._host:
            self.faults.append(f"a request to {request.url}")

    def _note_response(self, response: Response) -> None:
        if response.status >= 400:
            self.faults.append(f"{response.url}: {response.status}")


def find_faults(page: Page) -> Iterator[str]:
    """What is wrong with the page that is shown: accessibility, width, foreign text that became markup."""
    found: Any = Axe().run(page).response
    for one in found["violations"]:
        places = [node["html"][:150] for node in one["nodes"][:3]]
        yield f"{page.url}: {one['id']}: {one['help']}: {places}"
    wide = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    if wide > 0:
        yield f"{page.url}: {wide} pixels too wide"
    if page.locator("img[src=x], svg[onload], [onerror]").count():
        yield f"{page.url}: foreign text became markup"
