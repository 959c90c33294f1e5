from typing import Any
from unittest.mock import ANY

import pytest
from botocore.stub import Stubber

from orchestrator.errors import ObjectConflict, StoreError
from orchestrator.store.s3 import S3Objects


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
    objects = S3Objects(s3_url, max_attempts=2)
    stub = stubbed(objects)
    for _ in range(2):
        stub.add_client_error("put_object", "ConditionalRequestConflict", http_status_code=409)

    with pytest.raises(StoreError, match="run the same command again") as caught:
        objects.put_new("k", b"x")

    assert not isinstance(caught.value, ObjectConflict)


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
        S3Objects(s3_url, max_attempts=1).get("k")

    assert "very-secret" not in str(caught.value)


def test_more_keys_than_a_page_are_all_listed(s3_url: str) -> None:
    objects = S3Objects(s3_url)
    stub = stubbed(objects)
    prefix = s3_url.removeprefix("s3://").partition("/")[2]
    first = {"IsTruncated": True, "NextContinuationToken": "t", "Contents": [{"Key": f"{prefix}/a"}]}
    stub.add_response("list_objects_v2", first)
    stub.add_response("list_objects_v2", {"Contents": [{"Key": f"{prefix}/b"}, {"Key": f"{prefix}/.c"}]})

    assert list(objects.list("")) == ["a", "b"]
