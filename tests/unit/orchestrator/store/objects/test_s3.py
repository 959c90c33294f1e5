from datetime import UTC, datetime
from typing import Any
from unittest.mock import ANY

import pytest
from botocore.exceptions import BotoCoreError, ConnectTimeoutError, EndpointConnectionError, ReadTimeoutError
from botocore.stub import Stubber

from orchestrator.errors import ObjectConflict, StoreError, StoreFull
from orchestrator.store.objects.patience import Patience
from orchestrator.store.objects.s3 import S3Objects

BRIEF = Patience(total_s=2.0, first_wait_s=0.001, longest_wait_s=0.002)
NONE = Patience(total_s=0.0)


def stubbed(objects: S3Objects) -> Stubber:
    stub = Stubber(objects._client)
    stub.activate()
    return stub


def test_a_key_is_written_under_the_prefix(s3_url: str, s3_client: Any) -> None:
    S3Objects(s3_url).put("a/k", b"x")

    bucket, _, prefix = s3_url.removeprefix("s3://").partition("/")
    reply = s3_client.get_object(Bucket=bucket, Key=f"{prefix}/a/k")
    with reply["Body"] as body:
        assert body.read() == b"x"


def test_a_race_of_conditional_writes_is_tried_again(s3_url: str) -> None:
    objects = S3Objects(s3_url)
    stub = stubbed(objects)
    wanted = {"Bucket": ANY, "Key": ANY, "Body": b"x", "IfNoneMatch": "*"}
    stub.add_client_error(
        "put_object", "ConditionalRequestConflict", http_status_code=409, expected_params=wanted
    )
    stub.add_response("put_object", {"ETag": '"1"'}, wanted)

    assert objects.put_new("k", b"x")
    stub.assert_no_pending_responses()


def test_a_race_that_goes_on_is_no_answer(s3_url: str) -> None:
    objects = S3Objects(s3_url, patience=NONE)
    stub = stubbed(objects)
    stub.add_client_error("put_object", "ConditionalRequestConflict", http_status_code=409)

    with pytest.raises(StoreError, match="run the same command again") as caught:
        objects.put_new("k", b"x")

    assert not isinstance(caught.value, ObjectConflict)


@pytest.mark.parametrize(
    ("code", "status"),
    [
        ("SlowDown", 503),
        ("InternalError", 500),
        ("RequestTimeout", 400),
        ("502", 502),
        ("TooManyRequests", 429),
    ],
)
def test_what_may_pass_is_tried_again(s3_url: str, code: str, status: int) -> None:
    objects = S3Objects(s3_url, patience=BRIEF)
    stub = stubbed(objects)
    for _ in range(3):
        stub.add_client_error("delete_object", code, http_status_code=status)
    stub.add_response("delete_object", {})

    objects.delete("k")

    stub.assert_no_pending_responses()


@pytest.mark.parametrize(
    ("code", "status"), [("AccessDenied", 403), ("NoSuchBucket", 404), ("NotImplemented", 501)]
)
def test_what_stays_is_not_tried_again(s3_url: str, code: str, status: int) -> None:
    objects = S3Objects(s3_url, patience=BRIEF)
    stub = stubbed(objects)
    stub.add_client_error("get_object", code, http_status_code=status)

    with pytest.raises(StoreError, match=code):
        objects.get("k")

    stub.assert_no_pending_responses()


def test_a_quota_that_is_reached_is_no_failure_that_passes(s3_url: str) -> None:
    objects = S3Objects(s3_url, patience=BRIEF)
    stub = stubbed(objects)
    stub.add_client_error("put_object", "QuotaExceeded", http_status_code=403)

    with pytest.raises(StoreFull, match=r"QuotaExceeded.* raise the quota"):
        objects.put("k", b"data")

    stub.assert_no_pending_responses()


def test_after_the_limit_the_error_says_what_failed_how_often_and_for_how_long(s3_url: str) -> None:
    objects = S3Objects(s3_url, patience=Patience(total_s=0.05, first_wait_s=0.02, longest_wait_s=0.02))
    stub = stubbed(objects)
    for _ in range(1000):
        stub.add_client_error("get_object", "SlowDown", "Please reduce", http_status_code=503)

    with pytest.raises(StoreError, match=r"cannot read s3://.*/k: .*SlowDown.*tried \d+ times in \d\.\d s"):
        objects.get("k")


def test_a_write_whose_answer_was_lost_is_no_conflict(s3_url: str, s3_client: Any) -> None:
    objects = S3Objects(s3_url, patience=BRIEF)
    vars(objects)["_client"] = LosesAnswers(s3_client)

    assert objects.put_new("new", b"1")
    etag = objects.put("guarded", b"1")
    objects.put("guarded", b"2", if_match=etag)

    assert objects.get("new").data == b"1"
    assert objects.get("guarded").data == b"2"


def test_a_lost_answer_does_not_hide_another_writer(s3_url: str, s3_client: Any) -> None:
    other = S3Objects(s3_url)
    vars(other)["_client"] = s3_client
    objects = S3Objects(s3_url, patience=BRIEF)
    vars(objects)["_client"] = LosesAnswers(s3_client, after=lambda: other.put("k", b"theirs"))

    assert not objects.put_new("k", b"mine")

    assert other.get("k").data == b"theirs"


@pytest.mark.parametrize("wanted", ["bare", "quoted"])
def test_etags_are_guarded_whichever_way_the_server_spells_them(
    s3_url: str, s3_client: Any, wanted: str
) -> None:
    objects = S3Objects(s3_url)
    vars(objects)["_client"] = s3_client
    etag = objects.put("k", b"1")
    vars(objects)["_client"] = SpellsEtags(s3_client, etag.strip('"') if wanted == "bare" else etag)

    objects.put("k", b"2", if_match=etag)

    assert objects.get("k").data == b"2"
    with pytest.raises(ObjectConflict):
        objects.put("k", b"3", if_match=etag)


class LosesAnswers:
    """A client whose first answer to each put is lost on the way."""

    def __init__(self, client: Any, after: Any = lambda: None) -> None:
        self._client, self._after = client, after
        self._seen: set[bytes] = set()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    def put_object(self, **arguments: Any) -> Any:
        is_first = arguments["Body"] not in self._seen
        self._seen.add(arguments["Body"])
        reply = self._client.put_object(**arguments)
        if is_first:
            self._after()
            raise ReadTimeoutError(endpoint_url="http://somewhere")
        return reply


class OutOfReach:
    """A client whose first requests do not arrive."""

    def __init__(self, errors: list[BotoCoreError]) -> None:
        self.errors = errors

    def delete_object(self, **arguments: Any) -> None:
        if self.errors:
            raise self.errors.pop()


class SpellsEtags:
    """A client of a server that knows an etag in one spelling alone."""

    def __init__(self, client: Any, spelling: str) -> None:
        self._client, self._spelling = client, spelling

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    def put_object(self, *, IfMatch: str, **arguments: Any) -> Any:
        # An etag that nothing has, unless it is spelt as this server does.
        etag = IfMatch if IfMatch == self._spelling else "0" * 32
        return self._client.put_object(IfMatch=etag, **arguments)


def test_a_bucket_that_is_not_there_is_no_missing_object(s3_url: str) -> None:
    with pytest.raises(StoreError, match="create the bucket"):
        S3Objects("s3://no-such-bucket").get("k")


def test_without_credentials_says_what_to_set(s3_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")

    with pytest.raises(StoreError, match="AWS_SECRET_ACCESS_KEY"):
        S3Objects(s3_url).get("k")


def test_a_server_that_is_down_is_named_without_secrets(
    s3_url: str, closed_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{closed_port}")

    with pytest.raises(StoreError, match="AWS_ENDPOINT_URL") as caught:
        S3Objects(s3_url, patience=NONE).get("k")

    assert "very-secret" not in str(caught.value)


@pytest.mark.parametrize("error", [EndpointConnectionError, ConnectTimeoutError, ReadTimeoutError])
def test_a_server_that_is_out_of_reach_is_tried_again(s3_url: str, error: type[BotoCoreError]) -> None:
    objects = S3Objects(s3_url, patience=BRIEF)
    client = OutOfReach([error(endpoint_url="http://somewhere")] * 3)
    vars(objects)["_client"] = client

    objects.delete("k")

    assert client.errors == []


def test_more_keys_than_a_page_are_all_listed(s3_url: str) -> None:
    objects = S3Objects(s3_url)
    stub = stubbed(objects)
    prefix = s3_url.removeprefix("s3://").partition("/")[2]
    written = {"LastModified": datetime(2026, 1, 1, tzinfo=UTC), "Size": 1}
    found = [{"Key": f"{prefix}/{name}", **written} for name in ("a", "b", ".c")]
    first = {"IsTruncated": True, "NextContinuationToken": "t", "Contents": found[:1]}
    stub.add_response("list_objects_v2", first)
    stub.add_response("list_objects_v2", {"Contents": found[1:]})

    assert list(objects.list("")) == ["a", "b"]
