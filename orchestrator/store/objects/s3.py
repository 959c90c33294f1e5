"""Objects in a bucket, by boto3, which reads credentials, region, profile and ``AWS_ENDPOINT_URL`` itself.

A put of one request is atomic, so nothing is written under a temporary name. Exclusive and guarded writes are
the server's own conditional puts (``If-None-Match: *``, ``If-Match``), which S3 and Ceph's gateway have.

A transient error is retried here, and not by botocore, whose limit is a number of tries and not a time, and
which does not count a 409 in: another conditional write of the same key is under way. A try whose answer was
lost may have worked. The next one then finds the condition broken by its own object, which is no conflict.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property, partial
from http import HTTPStatus
from itertools import count
from typing import Any, TypeVar

import boto3
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    HTTPClientError,
    IncompleteReadError,
    NoCredentialsError,
    SSLError,
)
from botocore.exceptions import ConnectionError as NotConnected

from orchestrator.errors import ObjectConflict, ObjectMissing, StoreError, StoreFull
from orchestrator.store.objects.patience import TRANSIENT_STATUSES, GaveUp, Patience
from orchestrator.store.objects.protocol import (
    ListedObject,
    StoredObject,
    check_key,
    check_prefix,
    conflict,
    is_key,
    too_large,
)
from orchestrator.store.objects.traced import traced
from ship.redaction import Url, redact_url

__all__ = ["S3Objects"]

Result = TypeVar("Result")
CONNECT_TIMEOUT_S = 5
READ_TIMEOUT_S = 30
MAX_CONNECTIONS = 32
# Of access points, too.
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9.:_-]{0,254}")
_RACE = "ConditionalRequestConflict"
_MISSING = {"NoSuchKey", "404", "NotFound"}
_TRANSIENT_CODES = {
    _RACE,
    "InternalError",
    "RequestTimeout",
    "ServiceUnavailable",
    "SlowDown",
    "Throttling",
    "ThrottlingException",
}
# Ceph's gateway, and MinIO.
_FULL = {"QuotaExceeded", "XMinioStorageFull", "XMinioAdminBucketQuotaExceeded"}
_MAKE_ROOM = "make room (`ship gc`) or raise the quota, then run the same command again"
_ADVICE = {
    **dict.fromkeys(_FULL, _MAKE_ROOM),
    "NoSuchBucket": "create the bucket, or correct SHIP_STORE",
    "AccessDenied": "give these credentials read, write, delete and list on the bucket",
    "403": "give these credentials read, write, delete and list on the bucket",
    "InvalidAccessKeyId": "check AWS_ACCESS_KEY_ID and AWS_ENDPOINT_URL",
    "SignatureDoesNotMatch": "check AWS_SECRET_ACCESS_KEY",
    _RACE: "other writers hold this key; run the same command again",
    "NotImplemented": "this server has no conditional writes, which a store needs: use another",
}


class S3Objects:
    """An ``ObjectStore`` in a bucket; safe for many threads, and travels between processes.

    Args:
        url: ``s3://bucket`` or ``s3://bucket/prefix``.
        patience: Retry policy of requests. A server that takes connections and never answers holds
            up a call by one ``READ_TIMEOUT_S`` more.

    Raises:
        StoreError: The URL names no bucket, or its prefix is not a key.
    """

    def __init__(self, url: str, *, patience: Patience | None = None) -> None:
        # A bucket's keys are boto3's to find, so nothing of a user in the URL is kept.
        self._url = redact_url(url).rstrip("/")
        self._bucket, _, prefix = self._url.partition("://")[2].partition("/")
        if not _BUCKET.fullmatch(self._bucket):
            raise StoreError(f"store {self._url!r}: no bucket; expected s3://bucket/prefix")
        if "?" in Url(url).reveal() or (prefix and not is_key(prefix)):
            raise StoreError(
                f"store {self._url!r}: expected a prefix of letters, digits, '.', '_' and '-' in parts "
                "joined by one '/', none starting with '.' or '-', and nothing after it"
            )
        self._root = f"{prefix}/" if prefix else ""
        self._patience = patience or Patience()

    def __reduce__(self) -> tuple[Callable[..., "S3Objects"], tuple[str, Patience]]:
        """Travel as a URL: a client cannot be pickled."""
        return _reopen, (self._url, self._patience)

    @property
    def url(self) -> str:
        """``s3://`` URL of the prefix."""
        return self._url

    @traced
    def get(self, key: str, *, max_bytes: int | None = None) -> StoredObject:
        """Read an object."""

        def read() -> StoredObject:
            reply = self._client.get_object(Bucket=self._bucket, Key=self._key(key))
            return self._read(key, reply, max_bytes)

        return self._run("read", key, read)

    @traced
    def get_unless(self, key: str, etag: str, *, max_bytes: int | None = None) -> StoredObject | None:
        """Read an object, unless it has that etag."""

        def read() -> StoredObject | None:
            try:
                reply = self._client.get_object(Bucket=self._bucket, Key=self._key(key), IfNoneMatch=etag)
            except ClientError as error:
                if _status_of(error) == HTTPStatus.NOT_MODIFIED:
                    return None
                raise
            if reply["ETag"] == etag:
                # A server that has no such condition: its content need not be read all the same.
                reply["Body"].close()
                return None
            return self._read(key, reply, max_bytes)

        return self._run("read", key, read)

    @traced
    def exists(self, key: str) -> bool:
        """Whether the object is there."""
        try:
            self._etag_now(key)
        except ObjectMissing:
            return False
        return True

    @traced
    def put_new(self, key: str, data: bytes) -> bool:
        """Write an object that must not exist yet."""
        try:
            self._put(key, data, IfNoneMatch="*")
        except ObjectConflict:
            return False
        return True

    @traced
    def put(self, key: str, data: bytes, *, if_match: str | None = None) -> str:
        """Write or overwrite an object."""
        if if_match is None:
            return self._put(key, data)
        try:
            # Without its quotes: S3 takes both, and Ceph's gateway (16) takes them for a part of it.
            return self._put(key, data, IfMatch=if_match.strip('"'))
        except ObjectMissing:
            raise conflict(self._url, key) from None
        except ObjectConflict:
            if not self._has_etag(key, if_match):
                raise
        # Refused, although it is what is there: a server that wants the quotes.
        return self._put(key, data, IfMatch=if_match)

    def list(self, prefix: str) -> Iterator[str]:
        """Keys under ``prefix``, in order."""
        return (found.key for found in self.scan(prefix))

    def scan(self, prefix: str) -> Iterator[ListedObject]:
        """Objects under ``prefix``, in order, with size and time."""
        arguments = {"Bucket": self._bucket, "Prefix": self._root + check_prefix(prefix)}
        while True:
            page = self._run("list", prefix, partial(self._client.list_objects_v2, **arguments))
            for entry in page.get("Contents", ()):
                key = entry["Key"].removeprefix(self._root)
                if is_key(key):
                    modified_s = entry["LastModified"].timestamp()
                    yield ListedObject(key=key, num_bytes=entry["Size"], modified_s=modified_s)
            if not page.get("IsTruncated"):
                return
            arguments["ContinuationToken"] = page["NextContinuationToken"]

    def leftovers(self) -> Iterator[ListedObject]:
        """None: a put is whole or not there."""
        return iter(())

    def drop_leftover(self, key: str) -> None:
        """Refuse: there are none."""
        raise StoreError(f"{self._url}: {key[:120]!r} is not a temporary object of ours; it stays")

    @traced
    def delete(self, key: str) -> None:
        """Remove an object, if it is there."""
        path = self._key(key)
        self._run("delete", key, lambda: self._client.delete_object(Bucket=self._bucket, Key=path))

    @cached_property
    def _client(self) -> Any:
        # A session of our own: boto3's default one must not be used by several threads at once.
        return boto3.session.Session().client(
            "s3",
            config=Config(
                connect_timeout=CONNECT_TIMEOUT_S,
                read_timeout=READ_TIMEOUT_S,
                retries={"mode": "standard", "total_max_attempts": 1},
                max_pool_connections=MAX_CONNECTIONS,
            ),
        )

    def _key(self, key: str) -> str:
        return self._root + check_key(key)

    def _read(self, key: str, reply: Mapping[str, Any], max_bytes: int | None) -> StoredObject:
        with reply["Body"] as body:
            if max_bytes is not None and reply["ContentLength"] > max_bytes:
                raise too_large(self._url, key, reply["ContentLength"], max_bytes)
            return StoredObject(data=body.read(), etag=reply["ETag"])

    def _put(self, key: str, data: bytes, **condition: str) -> str:
        path, tries = self._key(key), count(1)

        def write() -> str:
            is_first = next(tries) == 1
            try:
                reply = self._client.put_object(Bucket=self._bucket, Key=path, Body=data, **condition)
            except ClientError as error:
                if is_first or _status_of(error) != 412 or (etag := self._etag_if(key, data)) is None:
                    raise
                return etag
            return str(reply["ETag"])

        return self._run("write", key, write)

    def _etag_now(self, key: str) -> str:
        path = self._key(key)
        reply = self._run("look up", key, lambda: self._client.head_object(Bucket=self._bucket, Key=path))
        return str(reply["ETag"])

    def _has_etag(self, key: str, etag: str) -> bool:
        try:
            return self._etag_now(key) == etag
        except ObjectMissing:
            return False

    def _etag_if(self, key: str, data: bytes) -> str | None:
        """The object's etag if ``data`` is what it holds."""
        try:
            stored = self.get(key, max_bytes=len(data))
        except StoreError:
            # Gone, larger, or not to be read now.
            return None
        return stored.etag if stored.data == data else None

    def _run(self, doing: str, key: str, action: Callable[[], Result]) -> Result:
        with self._errors(doing, key):
            return self._patience.run(action, _is_transient)

    @contextmanager
    def _errors(self, doing: str, key: str) -> Iterator[None]:
        try:
            yield
        except ClientError as error:
            raise self._translate(doing, key, error, str(error)) from error
        except GaveUp as end:
            if isinstance(end.error, ClientError):
                raise self._translate(doing, key, end.error, str(end)) from end
            raise StoreError(
                f"cannot {doing} {self._url}/{key}: {end}; check the network and AWS_ENDPOINT_URL"
            ) from end
        except NoCredentialsError as error:
            raise StoreError(
                f"cannot {doing} {self._url}/{key}: no credentials; set AWS_ACCESS_KEY_ID and "
                "AWS_SECRET_ACCESS_KEY, or AWS_PROFILE"
            ) from error
        except BotoCoreError as error:
            raise StoreError(
                f"cannot {doing} {self._url}/{key}: {error}; check the network and AWS_ENDPOINT_URL"
            ) from error

    def _translate(self, doing: str, key: str, error: ClientError, said: str) -> StoreError:
        code = _code_of(error)
        if code in _MISSING:
            return ObjectMissing(f"{self._url}/{key}: no such object")
        if _status_of(error) == 412:
            return conflict(self._url, key)
        advice = _ADVICE.get(code, "check the server's log, then run the same command again")
        kind = StoreFull if code in _FULL else StoreError
        return kind(f"cannot {doing} {self._url}/{key}: {said}; {advice}")


def _reopen(url: str, patience: Patience) -> S3Objects:
    return S3Objects(url, patience=patience)


def _is_transient(error: BaseException) -> bool:
    if isinstance(error, ClientError):
        return _code_of(error) in _TRANSIENT_CODES or _status_of(error) in TRANSIENT_STATUSES
    # No connection, a connection that broke, no answer in time. A bad certificate stays one.
    transient = (NotConnected, HTTPClientError, IncompleteReadError)
    return isinstance(error, transient) and not isinstance(error, SSLError)


def _code_of(error: ClientError) -> str:
    return str(error.response.get("Error", {}).get("Code", ""))


def _status_of(error: ClientError) -> int:
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
