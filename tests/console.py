"""The console command, run in this process."""

import sys

import pytest

from orchestrator.cli.main import main

__all__ = ["run_ship"]


def run_ship(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    """Run ``ship`` with these arguments; returns its exit status."""
    monkeypatch.setattr(sys, "argv", ["ship", *arguments])
    try:
        main()
    except SystemExit as ended:
        return int(ended.code or 0)
    return 0
