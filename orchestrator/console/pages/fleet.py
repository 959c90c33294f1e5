"""The page of the fleet: every task with what serves of it."""

from typing import Any

from fastapi import APIRouter, Request

from orchestrator.console.access import person_of, services_of
from orchestrator.console.rendering import add_page

__all__ = ["router"]

router = APIRouter()


def read_fleet(request: Request) -> dict[str, Any]:
    """All tasks that the sender may see."""
    person = person_of(request)
    return {"tasks": [info.task for info in services_of(request).tasks() if person.sees(info.task)]}


add_page(router, "/fleet", "fleet.html", read_fleet)
