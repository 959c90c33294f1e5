"""Objects in a bucket, by boto3, which reads credentials, region, profile and ``AWS_ENDPOINT_URL`` itself.

Exclusive and guarded writes are the server's own conditional puts (``If-None-Match: *``, ``If-Match``), which
S3 and Ceph's gateway have. Whatever is transient botocore retries; a 409, which says that another conditional
write of the same key is under way, is retried here, because botocore does not.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import Any
from urllib.parse import urlsplit

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError
from tenacity import Retrying, retry_if_exception, stop_after_attempt, wait_random_exponential

from orchestrator.errors import ObjectConflict, ObjectMissing, StoreError
from orchestrator.store.object_store import (
    StoredObject,
    check_key,
    check_prefix,
    conflict,
    is_key,
    too_large,
    without_secrets,
)

__all__ = ["S3Objects"]

CONNECT_TIMEOUT_S = 5
READ_TIMEOUT_S = 30
MAX_ATTEMPTS = 5
MAX_CONNECTIONS = 32
_RACE = "ConditionalRequestConflict"
_MISSING = {"NoSuchKey", "404", "NotFound"}
_ADVICE = {
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
        max_attempts: Tries of one request, the first included. With the time-outs of this module they bound
            a call to about three minutes if the server takes connections and never answers, to half a
            minute if it does not even do that.

    Raises:
        StoreError: The URL names no bucket, or its prefix is not a key.
    """

    def __init__(self, url: str, *, max_attempts: int = MAX_ATTEMPTS) -> None:
        parts = urlsplit(url)
        self._bucket = parts.netloc.rpartition("@")[2]
        prefix = parts.path.strip("/")
        if not self._bucket:
            raise StoreError(f"store {url!r}: no bucket; expected s3://bucket/prefix")
        self._root = f"{check_key(prefix)}/" if prefix else ""
        self._url = without_secrets(url).rstrip("/")
        self._max_attempts = max_attempts

    def __reduce__(self) -> tuple[Callable[..., "S3Objects"], tuple[str, int]]:
        """Travel as a URL: a client cannot be pickled."""
        return _reopen, (self._url, self._max_attempts)

    @property
    def url(self) -> str:
        """``s3://`` URL of the prefix."""
        return self._url

    def get(self, key: str, *, max_bytes: int | None = None) -> StoredObject:
        """Read an object."""
        with self._errors("read", key):
            reply = self._client.get_object(Bucket=self._bucket, Key=self._key(key))
            with reply["Body"] as body:
                if max_bytes is not None and reply["ContentLength"] > max_bytes:
                    raise too_large(self._url, key, reply["ContentLength"], max_bytes)
                return StoredObject(data=body.read(), etag=reply["ETag"])

    def exists(self, key: str) -> bool:
        """Whether the object is there."""
        try:
            with self._errors("look up", key):
                self._client.head_object(Bucket=self._bucket, Key=self._key(key))
        except ObjectMissing:
            return False
        return True

    def put_new(self, key: str, data: bytes) -> bool:
        """Write an object that must not exist yet."""
        try:
            self._put(key, data, IfNoneMatch="*")
        except ObjectConflict:
            return False
        return True

    def put(self, key: str, data: bytes, *, if_match: str | None = None) -> str:
        """Write or overwrite an object."""
        if if_match is None:
            return self._put(key, data)
        try:
            return self._put(key, data, IfMatch=if_match)
        except ObjectMissing:
            raise conflict(self._url, key) from None

    def list(self, prefix: str) -> Iterator[str]:
        """Keys under ``prefix``, in order."""
        start = self._root + check_prefix(prefix)
        with self._errors("list", prefix):
            pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=self._bucket, Prefix=start)
            for page in pages:
                keys = (entry["Key"].removeprefix(self._root) for entry in page.get("Contents", ()))
                yield from (key for key in keys if is_key(key))

    def delete(self, key: str) -> None:
        """Remove an object, if it is there."""
        with self._errors("delete", key):
            self._client.delete_object(Bucket=self._bucket, Key=self._key(key))

    @cached_property
    def _client(self) -> Any:
        # A session of our own: boto3's default one must not be used by several threads at once.
        return boto3.session.Session().client(
            "s3",
            config=Config(
                connect_timeout=CONNECT_TIMEOUT_S,
                read_timeout=READ_TIMEOUT_S,
                retries={"mode": "standard", "total_max_attempts": self._max_attempts},
                max_pool_connections=MAX_CONNECTIONS,
            ),
        )

    def _key(self, key: str) -> str:
        return self._root + check_key(key)

    def _put(self, key: str, data: bytes, **condition: str) -> str:
        with self._errors("write", key):
            for attempt in Retrying(
                retry=retry_if_exception(_is_race),
                stop=stop_after_attempt(self._max_attempts),
                wait=wait_random_exponential(multiplier=0.1, max=2),
                reraise=True,
            ):
                with attempt:
                    reply = self._client.put_object(
                        Bucket=self._bucket, Key=self._key(key), Body=data, **condition
                    )
        return str(reply["ETag"])

    @contextmanager
    def _errors(self, doing: str, key: str) -> Iterator[None]:
        try:
            yield
        except ClientError as error:
            raise self._translate(doing, key, error) from error
        except NoCredentialsError as error:
            raise StoreError(
                f"cannot {doing} {self._url}/{key}: no credentials; set AWS_ACCESS_KEY_ID and "
                "AWS_SECRET_ACCESS_KEY, or AWS_PROFILE"
            ) from error
        except BotoCoreError as error:
            raise StoreError(
                f"cannot {doing} {self._url}/{key}: {error}; check the network and AWS_ENDPOINT_URL"
            ) from error

    def _translate(self, doing: str, key: str, error: ClientError) -> StoreError:
        code = str(error.response.get("Error", {}).get("Code", ""))
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode")
        if code in _MISSING:
            return ObjectMissing(f"{self._url}/{key}: no such object")
        if status == 412:
            return conflict(self._url, key)
        advice = _ADVICE.get(code, "check the server's log, then run the same command again")
        return StoreError(f"cannot {doing} {self._url}/{key}: {error}; {advice}")


def _reopen(url: str, max_attempts: int) -> S3Objects:
    return S3Objects(url, max_attempts=max_attempts)


def _is_race(error: BaseException) -> bool:
    return isinstance(error, ClientError) and error.response["Error"]["Code"] == _RACE
