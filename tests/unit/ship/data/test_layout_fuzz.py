"""Folders and tables drawn at random: read with nothing lost, or refused by name; never a traceback."""

import json
import tempfile
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ship.data import DataSource, list_items
from ship.data.items import Listing
from ship.errors import ShipError

# fmt: off
_FOLDERS = st.sampled_from([
    "train", "Train", "test", "Testing", "val", "dev", "good", "bad", "scratch", "mask", "masks",
    "ground_truth", "rgb", "gt", "Images", "Masks", "Normal", "Anomaly", "@eaDir", "__MACOSX", ".hidden",
    ".git", "0", "1",
])
_FILES = st.sampled_from([
    "0.png", "1.PNG", "2.jpg", "3.jpeg", "4.tiff", "5.mpo", "a.txt", "notes.json", ".dot.png", "._0.png",
    "Thumbs.db", "noext", "metadata.csv",
])
_CELLS = st.one_of(
    st.sampled_from([
        "a.png", "../b.png", "/c.png", "s3://x/d.png", "", " ", "nan", "1", "1.0", "Train", "x", "\u0301",
    ]),
    st.text(max_size=5),
)
# fmt: on
_PATHS = st.builds(lambda above, name: "/".join((*above, name)), st.lists(_FOLDERS, max_size=4), _FILES)
# Half of the folders have two sound classes to begin with.
_SOUND = st.sampled_from(
    [frozenset(), frozenset(f"{name}/{n}.png" for name in ("good", "bad") for n in (7, 8))]
)
_SYSTEM = ("@eaDir", "__MACOSX", ".git", "._0.png", "Thumbs.db")
_BOUNDED = settings(
    derandomize=True, max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)


@_BOUNDED
@given(_SOUND, st.sets(_PATHS, min_size=1, max_size=14))
def test_no_file_of_a_folder_is_lost_in_silence(sound: frozenset[str], paths: set[str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        for path in sorted(sound | paths):
            target = Path(folder, path)
            if not any(parent.is_file() for parent in target.parents):
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(b"")
        files = [path for path in Path(folder).rglob("*") if path.is_file()]
        if (listing := _try(Path(folder))) is None:
            return
        system = {path for path in files if set(path.relative_to(folder).parts) & set(_SYSTEM)}
        counted = sum(entry.count for entry in listing.passed_over if "system" not in entry.kind)
        assert len(listing.items) + counted == len(files) - len(system)
        assert not system or any("system" in entry.kind for entry in listing.passed_over)
        for item in listing.items:
            assert item.label in item.path.split("/")


@_BOUNDED
@given(
    st.sampled_from(["path,label", "path;label;split", "file_name\tlabel", "Path,Label,split", "label", ""]),
    st.lists(st.lists(_CELLS, min_size=1, max_size=4), max_size=6),
    st.sampled_from([",", ";", "\t"]),
)
def test_a_table_is_read_or_refused(header: str, rows: list[list[str]], delimiter: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        table = Path(folder, "t.csv")
        lines = [header, *(delimiter.join(row) for row in rows)]
        table.write_text("\n".join(lines), encoding="utf-8", errors="surrogatepass")
        assert _is_sound(_try(table), most=len(rows) * 6)


@_BOUNDED
@given(st.lists(st.dictionaries(st.sampled_from(["file_name", "path", "label", "split", "source-ref"]),
                                st.one_of(st.none(), st.booleans(), st.floats(), st.integers(), _CELLS),
                                max_size=4), min_size=1, max_size=6))  # fmt: skip
def test_json_lines_are_read_or_refused(rows: list[dict[str, object]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        table = Path(folder, "t.jsonl")
        table.write_text("\n".join(map(json.dumps, rows)))
        assert _is_sound(_try(table), most=len(rows))


def _is_sound(listing: Listing | None, most: int) -> bool:
    """Whether a table was refused by name, or each of its images has a label and a path below its root."""
    if listing is None:
        return True
    sound = [item for item in listing.items if item.label and ".." not in item.path.split("/")]
    return len(sound) == len(listing.items) <= most


def _try(path: Path) -> Listing | None:
    try:
        return list_items(DataSource(path=str(path)))
    except ShipError:
        return None
