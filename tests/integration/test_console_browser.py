"""The console in a real browser: every page, the keyboard, foreign text and sites, and decisions by hand."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Locator, Page, expect, sync_playwright

from orchestrator.client import Client, ServedTask
from orchestrator.store.audit.log import AuditLog
from orchestrator.store.documents.audit import Author
from orchestrator.store.kept.reviews import Reviews
from tests.integration.console_pages import Watch, find_faults, page_paths
from tests.integration.console_plant import HOSTILE_LABEL, ConsolePlant, console_plant, wait_until
from tests.needs import BROWSER

# SQLAlchemy 2.1 tells MLflow 3.17 of an option that it will drop.
pytestmark = [
    pytest.mark.skipif(BROWSER.problem() is not None, reason=str(BROWSER.problem())),
    pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy is deprecated:DeprecationWarning"),
]
MORE_PATHS = (
    "/runs/tune-2/status",
    "/fleet?q=bolts&verdict=serves",
)
PATIENCE_MS = 60_000
expect.set_options(timeout=PATIENCE_MS)
MAX_TABS = 150


@pytest.fixture(scope="module")
def plant(tmp_path_factory: pytest.TempPathFactory, empty_database: Path) -> Iterator[ConsolePlant]:
    with console_plant(tmp_path_factory.mktemp("plant"), empty_database) as plant:
        yield plant


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=BROWSER.find("chromium"), args=["--no-sandbox", "--disable-gpu"]
        )
        yield browser
        browser.close()


@pytest.fixture
def maria(chromium: Browser, plant: ConsolePlant) -> Iterator[Page]:
    """A page of a person who may decide; in the end nothing has gone wrong in it."""
    page, watch = open_page(chromium, plant)
    sign_in(page, plant, "maria")
    yield page
    page.context.close()
    assert watch.faults == []


def open_page(chromium: Browser, plant: ConsolePlant, **context: Any) -> tuple[Page, Watch]:
    made = chromium.new_context(base_url=plant.url, **context)
    made.set_default_timeout(PATIENCE_MS)
    watch = Watch(made, plant.url)
    return made.new_page(), watch


def sign_in(page: Page, plant: ConsolePlant, name: str) -> None:
    """By keyboard alone: the field for the token has the focus."""
    page.goto("/sign-in")
    expect(page.get_by_label("Token")).to_be_focused()
    page.keyboard.type(plant.tokens[name])
    page.keyboard.press("Enter")
    page.wait_for_url("**/fleet")


def tab_to(page: Page, wanted: Locator) -> None:
    """Press the tabulator until an element has the focus."""
    for _ in range(MAX_TABS):
        if wanted.evaluate("element => element === document.activeElement"):
            return
        page.keyboard.press("Tab")
    raise AssertionError(f"{wanted} is not reached by the keyboard")


def served(plant: ConsolePlant, task: str) -> ServedTask:
    """A task as the endpoint has it."""
    with Client(plant.endpoint, "") as client:
        return client.task(task)


def entries(plant: ConsolePlant, task: str) -> list[tuple[str, str, str]]:
    """Kind, author and reason of the changes of a task, the newest first."""
    log = (entry.record for entry in AuditLog(plant.place.store).newest())
    return [(one.action, one.by, one.reason) for one in log if one.task == task]


@pytest.mark.parametrize(
    ("scheme", "width"), [("light", 1280), ("dark", 390)], ids=["light and wide", "dark and narrow"]
)
def test_every_page_is_sound(chromium: Browser, plant: ConsolePlant, scheme: str, width: int) -> None:
    page, watch = open_page(chromium, plant, color_scheme=scheme, viewport={"width": width, "height": 900})
    page.goto("/sign-in")
    faults = list(find_faults(page))
    sign_in(page, plant, "maria")
    for path in (*page_paths(), *MORE_PATHS):
        page.goto(path, wait_until="load")
        expect(page.locator("h1")).to_have_count(1)
        faults += find_faults(page)
    page.context.close()
    assert faults + watch.faults == []


def test_foreign_text_is_shown_as_it_is(maria: Page) -> None:
    maria.goto("/tasks/bolts/about")
    expect(maria.get_by_text(HOSTILE_LABEL, exact=True).first).to_be_visible()
    maria.goto("/runs/tune-1/status")
    expect(maria.get_by_text(HOSTILE_LABEL).first).to_be_visible()


def test_the_report_of_a_run_is_shown_without_scripts(maria: Page) -> None:
    maria.goto("/runs/tune-1/status")
    maria.get_by_role("link", name="The whole report").click()
    expect(maria.get_by_text("1 of 2 serve; 1 failed")).to_be_visible()
    assert maria.evaluate("getComputedStyle(document.body).maxWidth") != "none", "it has its own styles"


def test_the_keyboard_is_enough_to_sign_in_filter_and_promote(maria: Page, plant: ConsolePlant) -> None:
    maria.keyboard.press("Tab")
    expect(maria.get_by_role("link", name="Skip to the content")).to_be_focused()
    for name, address in (("Audit", "/audit"), ("Fleet", "/fleet")):
        tab_to(maria, maria.get_by_role("navigation").get_by_role("link", name=name))
        maria.keyboard.press("Enter")
        maria.wait_for_url(f"**{address}")
    tab_to(maria, maria.get_by_label("Name or tag contains"))
    maria.keyboard.type("bol")
    maria.keyboard.press("Enter")
    maria.wait_for_url("**q=bol*")
    expect(maria.get_by_role("row")).to_have_count(2)
    tab_to(maria, maria.get_by_role("link", name="bolts", exact=True))
    maria.keyboard.press("Enter")
    maria.wait_for_url("**/tasks/bolts/about")
    tab_to(maria, maria.get_by_role("link", name="Compare", exact=True))
    maria.keyboard.press("Enter")
    maria.wait_for_url("**/tasks/bolts/compare*")

    other = 3 - (served(plant, "bolts").version or 0)
    tab_to(maria, maria.locator(f"#promote-reason-{other}"))
    maria.keyboard.type("fewer false alarms on line 2")
    maria.keyboard.press("Enter")
    promoted = maria.get_by_role("row", name=f"v{other}").first
    expect(promoted.get_by_text("champion", exact=True)).to_be_visible()

    info = next(one for one in plant.place.registry.tasks() if one.task == "bolts")
    assert info.champion is not None
    assert info.champion.version == other
    wait_until(lambda: served(plant, "bolts").version == other, "the endpoint follows")
    assert entries(plant, "bolts")[0] == ("promote", "maria", "fewer false alarms on line 2")


def test_a_threshold_that_was_chosen_by_hand_decides(maria: Page, plant: ConsolePlant) -> None:
    maria.goto("/tasks/nuts/threshold?knob=confidence&value=0.9")
    expect(maria.get_by_role("slider")).to_be_visible()
    maria.get_by_label("Reason").first.fill("the camera was moved")
    maria.get_by_role("button", name="Decide by this rule").click()
    expect(maria.get_by_text("that maria set")).to_be_visible()
    stored = plant.place.store.read_rollout("nuts")
    assert stored is not None
    [rule] = stored[0].rules.values()
    catalog = plant.place.store.read_catalog()
    assert catalog is not None
    assert catalog[0].entries["nuts"].rules == stored[0].rules
    wait_until(lambda: served(plant, "nuts").rule == rule, "the endpoint decides by it")
    _, by, reason = entries(plant, "nuts")[0]
    assert (by, reason) == ("maria", "the camera was moved")


def test_a_kept_picture_is_labelled_by_key(maria: Page, plant: ConsolePlant) -> None:
    maria.goto("/review/bolts/pictures")
    key = maria.get_by_role("button", name="good").get_attribute("data-key")
    assert key is not None
    maria.locator("main").press(key)
    expect(maria.get_by_text("has your label")).to_be_visible()
    [found] = Reviews(plant.place.store).pictures("bolts")
    assert [(one.by, one.label) for one in found.review.opinions] == [("maria", "good")]
    assert entries(plant, "bolts")[0][:2] == ("review", "maria")


def test_a_tuning_is_not_started_beside_a_run_at_work(chromium: Browser, plant: ConsolePlant) -> None:
    [found] = Reviews(plant.place.store).pictures("bolts")
    Reviews(plant.place.store).label("bolts", {found.kept.picture: "good"}, Author(by="ben", host="press"))
    page, watch = open_page(chromium, plant)
    sign_in(page, plant, "maria")
    page.goto("/review/bolts/pictures")
    page.get_by_role("button", name="Tune with the settled labels").click()
    expect(page.get_by_role("alert")).to_contain_text("is at work in this home")
    page.context.close()
    assert all("409" in fault for fault in watch.faults), watch.faults


def test_a_picture_is_asked_about(maria: Page, plant: ConsolePlant) -> None:
    maria.goto("/try?task=bolts")
    maria.get_by_label("Picture").set_input_files(plant.picture)
    expect(maria.get_by_alt_text("The chosen picture")).to_be_visible()
    maria.get_by_role("checkbox", name="nuts").check()
    maria.get_by_role("button", name="Ask").click()
    expect(maria.get_by_role("heading", name="bolts")).to_be_visible()
    expect(maria.get_by_role("heading", name="nuts")).to_be_visible()
    expect(maria.get_by_alt_text("Attention of bolts")).to_be_visible()
    expect(maria.get_by_role("row", name="good").first).to_be_visible()
    maria.get_by_text("The same by curl").first.click()
    expect(maria.get_by_text("$SHIP_TOKEN").first).to_be_visible()
    assert list(find_faults(maria)) == []
    maria.get_by_label("Version").fill("77")
    maria.get_by_role("button", name="Ask").click()
    expect(maria.get_by_role("alert").first).to_contain_text("version-not-served")


def test_a_run_at_work_is_steered_and_its_page_follows(maria: Page) -> None:
    maria.goto("/runs/tune-2/status")
    row = maria.get_by_role("row", name="gears")
    row.get_by_role("button", name="Cancel gears").click()
    expect(row.get_by_text("cancelled")).to_be_visible()
    maria.evaluate("window.stays = true")
    with maria.expect_response("**/runs/tune-2/live"):
        pass
    assert maria.evaluate("window.stays"), "a part of the page is renewed, not the page"
    maria.get_by_role("button", name="Retry gears").click()
    expect(row.get_by_text("waits")).to_be_visible()


def test_who_may_only_look_is_offered_no_decision(chromium: Browser, plant: ConsolePlant) -> None:
    page, watch = open_page(chromium, plant)
    sign_in(page, plant, "otto")
    for path in ("/tasks/bolts/compare", "/tasks/nuts/threshold", "/runs/tune-2/status"):
        page.goto(path)
        expect(page.locator("main form[method=post]")).to_have_count(0)
    page.context.close()
    assert watch.faults == []


POST = """url => fetch(url, {method: "POST", mode: "no-cors", credentials: "include",
  headers: {"Content-Type": "application/x-www-form-urlencoded"}, body: "version=1&reason=because"})
  .then(reply => reply.type, error => String(error))"""


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"], ids=["another port", "another site"])
def test_other_origins_change_nothing_and_show_nothing(
    chromium: Browser, plant: ConsolePlant, host: str
) -> None:
    """A page of another port gets the cookie sent, one of another site does not; both are refused."""
    page, watch = open_page(chromium, plant)
    sign_in(page, plant, "maria")
    before = entries(plant, "nuts")
    page.goto(f"{plant.foreign.replace('127.0.0.1', host)}/?url={plant.url}")
    assert page.frame_locator("#frame").get_by_role("heading", name="Fleet").count() == 0
    with page.expect_response("**/tasks/nuts/promote") as posted:
        page.evaluate("document.getElementById('form').submit()")
    assert posted.value.status == 403
    # The refusal is for the same origin alone, so that a script of another one reads nothing of it.
    assert "Failed to fetch" in page.evaluate(POST, f"{plant.url}/tasks/nuts/promote")
    assert any("frame" in fault.lower() for fault in watch.faults), watch.faults
    page.context.close()
    assert entries(plant, "nuts") == before


def test_a_form_without_the_value_of_its_session_is_refused(maria: Page, plant: ConsolePlant) -> None:
    before = entries(plant, "bolts")
    reply = maria.request.post(
        f"{plant.url}/tasks/bolts/promote",
        form={"version": 1, "reason": "because", "csrf": "guessed"},
        headers={"Origin": plant.url},
    )
    assert reply.status == 403
    assert re.search("another session", reply.text())
    assert entries(plant, "bolts") == before
