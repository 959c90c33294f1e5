"""Secrets of URLs are in no text of theirs, whatever the form of the URL, and in no message of a library."""

import copy
import json
import logging
import pickle

import pytest

from ship.data import DataSource
from ship.errors import DataError
from ship.redaction import RedactingFormatter, Url, redact_text, redact_url, redact_values

REDACTED = {
    "s3://KEY:S3cret@bucket/p": "s3://bucket/p",
    "https://S3cret@host/x": "https://host/x",
    "simplecache::sftp://user:S3cret@host/ship": "simplecache::sftp://host/ship",
    "filecache::ftp://u:S3cret@h/x": "filecache::ftp://h/x",
    "simplecache::zip://a.png::https://u:S3cret@h/f.zip?sig=S3cret": "simplecache::zip://a.png::https://h/f.zip",
    "simplecache::s3://u:S3::cret@bucket/x": "simplecache::s3://bucket/x",
    "sftp://u:S3@cret@h/p": "sftp://h/p",
    "https://u:S3/cret@h/p": "https://h/p",
    "https://u:S3?cret@h/p": "https://h/p",
    "http://u:S3cret@[::1]:80/a@b": "http://[::1]:80/a@b",
    "https://h/w.csv?X-Amz-Signature=S3cret&X-Amz-Expires=9": "https://h/w.csv",
    "https://acc.blob/x?sv=1&sig=S3cret": "https://acc.blob/x",
    "https://h/x#access_token=S3cret": "https://h/x",
    "postgresql://u:S3@cret@db/mlflow": "postgresql://db/mlflow",
    "postgresql://u:12/S3cret@db/mlflow": "postgresql://db/mlflow",
    "postgresql+psycopg://u:S3/cr@et@db:5432/mlflow": "postgresql+psycopg://db:5432/mlflow",
    "postgresql://@db/mlflow?user=u&password=S3cret": "postgresql://db/mlflow",
    "abfs://container:S3cret@acc/x": "abfs://acc/x",
}
PLAIN = [
    "abfs://container@account.dfs.core.windows.net/ship",
    "s3://bucket/data@v2/train",
    "http://host:8080/a@b",
    "memory://a:b/c",
    "sqlite:////home/u:x@y/mlflow.db",
    "file:///data/token=5/x",
    "/data/u:x@y/token=5?b#c=d",
    "zip://d/a.png::s3://b/x",
    "",
]


@pytest.mark.parametrize(("url", "expected"), REDACTED.items())
def test_the_text_of_a_url_shows_no_secret(url: str, expected: str) -> None:
    found = Url(url)
    assert str(found) == f"{found}" == "%s" % found == redact_url(url) == expected  # noqa: UP031
    assert repr(found) == repr(expected)
    assert redact_text(f"cannot read '{url}': no such file") == f"cannot read '{expected}': no such file"
    assert redact_text(f"{url}, and {url}: gone") == f"{expected}, and {expected}: gone"


@pytest.mark.parametrize("url", PLAIN)
def test_a_url_without_secrets_stays_as_it_is(url: str) -> None:
    assert str(Url(url)) == url
    assert redact_text(f"{url}: no such file") == f"{url}: no such file"


def test_the_library_that_connects_gets_all_of_it() -> None:
    plain = "s3://KEY:S3cret@bucket/p?x=1"
    for url in (
        Url(plain),
        Url(Url(plain)),
        pickle.loads(pickle.dumps(Url(plain))),
        copy.deepcopy(Url(plain)),
    ):
        assert type(url) is Url
        assert url.reveal() == url == plain
        assert type(url.reveal()) is str


@pytest.mark.parametrize(
    "said",
    [
        'Invalid bucket name "user:p@ss:w%rd@bucket"',
        "no host ss:w%rd@bucket",
        "wrong password p@ss:w%rd",
        "GET /x p%40ss%3Aw%25rd",
        "wrong signature a b+c, a%20b%2Bc, a+b%2Bc",
    ],
)
def test_a_librarys_message_loses_the_secrets_in_whatever_form(said: str) -> None:
    url = Url("simplecache::https://user:p@ss:w%rd@bucket/x?sig=a%20b%2Bc")
    found = url.redact(said)
    assert "***" in found
    assert not any(part in found for part in ("ss:w", "p@ss", "p%40", "b+c", "b%2Bc"))


def test_named_secrets_are_cut_out_of_any_text() -> None:
    said = "host=db user=u password=S3cret dbname=x; AccountName=a;AccountKey=S3cret==;X-Amz-Signature=S3cret"
    assert "S3cret" not in redact_text(said)
    assert "dbname=x" in redact_text(said)


def test_an_error_shows_no_secret_even_when_it_travelled() -> None:
    error = DataError(["s3://u:S3cret@b/x: gone", "https://h/y?token=S3cret: gone"])
    for found in (error, pickle.loads(pickle.dumps(error))):
        assert found.problems == ("s3://b/x: gone", "https://h/y: gone")
        assert "S3cret" not in repr(found)


def test_neither_do_the_settings_of_data_nor_a_log_line() -> None:
    source = DataSource(path="s3://u:S3cret@b/x.csv", image_root="https://h/y?token=S3cret")
    assert "S3cret" not in f"{source} {source!r} {source.path} {source.image_root}"
    assert DataSource.from_dict(source.to_dict()) == source
    assert "S3cret" not in json.dumps(redact_values({"source": source.to_dict(), "all": [source.path]}))
    try:
        raise OSError(f"cannot read {source.path.reveal()}")
    except OSError as error:
        record = logging.LogRecord("x", 30, "x", 1, "%s", (source.path.reveal(),), (OSError, error, None))
    assert "S3cret" not in RedactingFormatter("%(message)s").format(record)
