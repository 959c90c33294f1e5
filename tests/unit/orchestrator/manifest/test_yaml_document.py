import pytest

from orchestrator.errors import ManifestError
from orchestrator.manifest.yaml_document import parse_yaml


def test_values_and_their_lines() -> None:
    document = parse_yaml(b"a: 1\nlist:\n  - x\n  - key: 2.5\n    other: yes\n")

    assert document.value == {"a": 1, "list": ["x", {"key": 2.5, "other": True}]}
    assert document.describe(("list", 1, "key")) == "list[1].key (line 4)"
    assert document.describe(("list", 1, "missing")) == "list[1].missing (line 4)"
    assert document.describe(()) == "manifest"


@pytest.mark.parametrize(("text", "number"), [("1e-3", 1e-3), ("5E4", 5e4), ("-2.5e+1", -25.0)])
def test_numbers_that_yaml_1_1_takes_for_text(text: str, number: float) -> None:
    assert parse_yaml(f"a: {text}".encode()).value == {"a": number}


@pytest.mark.parametrize("text", ["!!set {a, b}", "!!omap [a: 1]", "!!pairs [a: 1]", "!!binary '////'"])
def test_values_that_are_not_plain_are_refused(text: str) -> None:
    tag = text.partition(" ")[0]
    with pytest.raises(ManifestError, match=f"line 2: expected a plain value, found one with the tag {tag}"):
        parse_yaml(f"a:\n  {text}".encode())


def test_nothing() -> None:
    assert parse_yaml(b"# only a comment\n").value is None


def test_aliases_and_merges_work() -> None:
    document = parse_yaml(b"a: &a {p: 1, q: 2}\nb: {<<: *a, q: 3}\nc: *a\n")

    assert document.value == {"a": {"p": 1, "q": 2}, "b": {"p": 1, "q": 3}, "c": {"p": 1, "q": 2}}


def test_keys_are_text_and_come_once() -> None:
    with pytest.raises(ManifestError) as caught:
        parse_yaml(b"a: 1\nb:\n  c: 1\n  c: 2\na: 2\n1: 3\n? [x]\n: 2\n")
    assert caught.value.problems == (
        "line 4: key 'c' is repeated, first in line 3",
        "line 5: key 'a' is repeated, first in line 1",
        "line 6: expected text as a key, found '1'; put it in quotes",
        "line 7: expected text as a key, found a list or mapping; put it in quotes",
    )


BILLION_LAUGHS = "a0: &a0 [x]\n" + "".join(
    f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 12)
)
MERGE_BOMB = "a0: &a0 {k: v}\n" + "".join(
    f"a{i}: &a{i} {{<<: [{', '.join([f'*a{i - 1}'] * 10)}]}}\n" for i in range(1, 12)
)
ALIAS_TOWER = "".join(f"- &a{i} {'[' * 25}{f'*a{i - 1}' if i else 'x'}{']' * 25}\n" for i in range(200))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (BILLION_LAUGHS.encode(), "line 7: more than 2000000 values, counting aliases"),
        (MERGE_BOMB.encode(), "more than 2000000 values, counting aliases"),
        (ALIAS_TOWER.encode(), "aliases nested too deep"),
        (b"a: &a [*a]", r"line 1: alias \*a has no anchor before it, or is inside of it"),
        (b"a: *b", r"alias \*b has no anchor before it"),
        # Either would overrun the C stack of libyaml's composer.
        (b"[" * 100_000, "nested more than 30 deep"),
        (b"- " * 100_000, "nested more than 30 deep"),
        (b"a: 1\n---\nb: 2\n", "line 2, column 1: expected a single document"),
        (b"a: [1\nb: 2\n", "not valid YAML: line 2, column 2"),
        (b"a:\n\t- b\n", "not valid YAML: line 2, column 1"),
        (b"a: !!python/object/apply:os.system [ls]", "line 1, column 4: could not determine a constructor"),
        (b"a: 2024-13-45", "month must be in 1..12"),
        *[
            (f"a: !!{tag}".encode(), "a value does not fit the tag")
            for tag in ("bool x", "int ''", "float ''", "timestamp x")
        ],
        (bytes(range(256)), "not valid YAML"),
        (b"\xff\xfe\xfa", "not valid YAML"),
    ],
    ids=lambda value: value[:24] if isinstance(value, str) else "",
)
def test_refused(content: bytes, message: str) -> None:
    with pytest.raises(ManifestError, match=message):
        parse_yaml(content)
