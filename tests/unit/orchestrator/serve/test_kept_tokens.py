"""The last tokens on disk are this user's own, as old as their record says, and of no use if damaged."""

import json
import os
from pathlib import Path

import pytest

from orchestrator.serve.kept_tokens import KeptTokens, open_kept_tokens
from orchestrator.store.documents.token_changes import create_token
from orchestrator.store.documents.tokens import BrokenToken, Scope, Tokens

URL = "s3://bucket/prompts"
TOKENS, MADE = create_token(Tokens(), "plc", Scope(predict=("*",)), now_s=0.0)


def keep_at(folder: Path, wall_s: float, age_s: float = 0.0) -> Path:
    KeptTokens(folder, URL, lambda: wall_s).keep(TOKENS, age_s)
    [path] = folder.iterdir()
    return path


def test_they_read_back_without_a_secret_for_this_store_and_this_user(tmp_path: Path) -> None:
    folder = tmp_path / "tokens"
    path = keep_at(folder, 1_000.0)
    assert KeptTokens(folder, URL, lambda: 1_000.0).read() == (TOKENS, 0.0)
    assert KeptTokens(folder, f"{URL}/other").read() is None
    assert MADE.text.rpartition("_")[2] not in path.read_text()
    assert (path.stat().st_mode | folder.stat().st_mode) & 0o077 == 0


def test_a_broken_entry_stays_one(tmp_path: Path) -> None:
    tokens = Tokens.from_json(json.dumps({"schema": 1, "tokens": {"x": 1}}).encode())
    assert isinstance(tokens.broken["x"], BrokenToken)
    kept = KeptTokens(tmp_path, URL)
    kept.keep(tokens)
    assert kept.read()[0] == tokens


@pytest.mark.parametrize(
    ("wall_s", "age_s"),
    [(1_000.0, 7.0), (1_600.0, 607.0), (990.0, 0.0), (934.0, 0.0), (932.0, None), (0.0, None)],
)
def test_their_age_is_their_records(tmp_path: Path, wall_s: float, age_s: float | None) -> None:
    """A clock that was set back by more than a little makes nothing new again."""
    path = keep_at(tmp_path, 1_000.0, age_s=7.0)
    # Such as of a copy, or of a backup that was restored.
    os.utime(path, (wall_s, wall_s))
    found = KeptTokens(tmp_path, URL, lambda: wall_s).read()
    assert (None if found is None else found[1]) == age_s


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[" * 100_000,
        b'{"schema":1,"read_s":1}',
        b'{"schema":2,"read_s":1}\n' + TOKENS.to_json(),
        b'{"schema":1,"read_s":NaN}\n' + TOKENS.to_json(),
        b'{"schema":1,"read_s":-1}\n' + TOKENS.to_json(),
        b'{"schema":1,"read_s":"1"}\n' + TOKENS.to_json(),
        b'{"schema":1,"read_s":1}\n' + TOKENS.to_json()[:-9],
        TOKENS.to_json(),
        b'{"schema":1,"read_s":1}\n' + b" " * (1 << 20) + TOKENS.to_json(),
    ],
)
def test_what_is_no_record_with_tokens_is_none(
    tmp_path: Path, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    path = keep_at(tmp_path, 1_000.0)
    path.write_bytes(content)
    assert KeptTokens(tmp_path, URL).read() is None
    assert "cannot be used: " in caplog.text


def test_a_file_that_others_may_have_written_is_none(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = keep_at(tmp_path, 1_000.0)
    path.chmod(0o622)
    assert KeptTokens(tmp_path, URL).read() is None
    assert "not this user's alone: mode 622" in caplog.text
    path.chmod(0o600)
    other = path.rename(tmp_path / "elsewhere")
    path.symlink_to(other)
    assert KeptTokens(tmp_path, URL).read() is None


def test_a_folder_that_cannot_be_made_is_told_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("")
    kept = KeptTokens(tmp_path / "file" / "tokens", URL)
    for _ in range(2):
        kept.keep(TOKENS)
    [record] = caplog.records
    assert "serving goes on without" in record.getMessage()
    assert kept.read() is None


def test_a_cache_that_keeps_nothing_keeps_none() -> None:
    assert open_kept_tokens(URL, None) is None
