"""Addresses of data drawn at random: found, or refused by name; and no message shows a secret in them."""

import io
import tarfile
import tempfile
import zipfile
from pathlib import Path

import fsspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ship.data import DataSource, find_folders, list_items, path_exists, read_small_file
from ship.errors import DataError, ShipError
from ship.redaction import Url, redact_text, redact_url

SECRET = "S3cr3t"
BOUNDED = settings(
    derandomize=True, max_examples=40, deadline=None, database=None, suppress_health_check=list(HealthCheck)
)
# fmt: off
SCHEMES = st.sampled_from([
    "", "", "file://", "file:///", "file:", "FILE://", "memory://", "memory:/", "zip://", "tar://", "zip::",
    "::", "nothing://", "://", "local://", "dir::", "simplecache::", "filecache::", "reference://",
    "memory://anna:S3cr3t@data/", "nothing://anna:S3cr3t@host/", "zip://good::memory://S3cr3t@data.zip",
    "memory://data?token=S3cr3t&", "file://{folder}?sig=S3cr3t", "zip::file://anna:S3cr3t@{folder}/data.zip",
])
PARTS = st.sampled_from([
    "{folder}", "{folder}/good", "{folder}/data.zip", "{folder}/data.tar", "good", "data", "data/good", "*",
    "**", "[ab]", "?", "..", ".", "~", "", " ", "#", "%20", "%2e%2e", "::", "::memory://data.zip",
    "::file://{folder}/data.zip",
    "\x00", "\n", "\udcff", "\u0301", "a" * 300, "@", ":0", "?", "#x=1",
])
PASSWORDS = st.text("abz019!*'();:@&=+$,/?#[]%~ü", min_size=6, max_size=12)
# fmt: on


@pytest.fixture(scope="module", autouse=True)
def in_memory() -> None:
    """A data set in memory, and an archive of it."""
    memory = fsspec.filesystem("memory")
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for name in FILES:
            archive.writestr(name, b"x")
            memory.pipe_file(f"/data/{name}", b"x")
    memory.pipe_file("/data.zip", packed.getvalue())


FILES = [f"{label}/{number}.png" for label in ("good", "bad") for number in range(2)]


@pytest.fixture(scope="module")
def folder() -> str:
    with tempfile.TemporaryDirectory(prefix="ship-urls-") as name:
        root = Path(name)
        with zipfile.ZipFile(root / "data.zip", "w") as archive, tarfile.open(root / "data.tar", "w") as tape:
            for file in FILES:
                (root / file).parent.mkdir(exist_ok=True)
                (root / file).write_bytes(b"x")
                archive.write(root / file, file)
                tape.add(root / file, f"./{file}")
        yield name


@BOUNDED
@given(SCHEMES, st.lists(PARTS, max_size=3), st.sampled_from(["", "/"]))
def test_an_address_is_found_or_refused_by_name(
    folder: str, scheme: str, parts: list[str], joint: str
) -> None:
    address = (scheme + joint.join(parts)).replace("{folder}", folder)
    for ask in (path_exists, find_folders, lambda url: read_small_file(url, max_bytes=100), _list):
        try:
            found = ask(address)
        except ShipError as error:
            said = error.problems
        else:
            said = tuple(found) if isinstance(found, list) else ()
            # Folders are handed on as they are asked for again.
            said = () if ask is find_folders else said
        assert all(problem and SECRET not in problem for problem in said), said


@pytest.mark.parametrize(
    "address", ["{folder}", "file://{folder}", "memory://data", "zip://::memory://data.zip"]
)
def test_the_same_data_is_found_wherever_it_lies(folder: str, address: str) -> None:
    assert _list(address.replace("{folder}", folder)) == sorted(FILES)


@BOUNDED
@given(
    st.sampled_from(["s3", "https", "abfs", "postgresql", "ftp", "sftp", "hdfs", "gs"]),
    PASSWORDS,
    st.sampled_from(["", ":9000"]),
    st.sampled_from(["", "/a/b.png", "/a?x=1", "/"]),
    st.sampled_from(["", "zip://inner::", "simplecache::"]),
)
def test_a_password_is_shown_by_no_text_of_a_url(
    scheme: str, password: str, port: str, path: str, chain: str
) -> None:
    url = f"{chain}{scheme}://anna:{password}@host.example{port}{path}"
    if any(char in password for char in " \"'<>`"):
        return
    for text in (
        str(Url(url)),
        repr(Url(url)),
        f"{Url(url)}",
        redact_url(url),
        Url(url).redact(f"no {url}: gone"),
    ):
        assert password not in text
    if not set("@/?#") & set(password):
        assert password not in redact_text(f"cannot open {url}: not found")
        assert "host.example" in redact_text(f"cannot open {url}: not found")


def _list(address: str) -> list[str]:
    return sorted(item.path for item in list_items(DataSource(path=address)).items)


def test_an_unknown_scheme_is_refused_by_name() -> None:
    with pytest.raises(DataError, match="nothing"):
        path_exists("nothing://user:S3cr3t@host/x")
