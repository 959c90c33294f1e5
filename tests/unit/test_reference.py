"""The reference of commands, settings, problem kinds and metrics is what the code says."""

from tests.reference import TARGET, render


def test_reference_is_what_the_code_says() -> None:
    assert TARGET.read_text(encoding="utf-8") == render(), "docs/reference.md: run `make reference`"
