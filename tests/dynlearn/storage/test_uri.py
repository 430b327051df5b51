import pytest
from hypothesis import given
from hypothesis import strategies as st

from dynlearn.storage.uri import without_secrets


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        ("s3://KEY:SECRET@bucket/walk", "s3://bucket/walk"),
        ("s3://KEY:SE/CR+ET==@bucket/walk", "s3://bucket/walk"),
        ("s3://KEY@bucket", "s3://bucket"),
        ("s3://KEY:SE?C@R/ET@bucket", "s3://bucket"),
        ("s3:/KEY:SECRET@bucket", "s3:/bucket"),
        ("s3:///KEY:SECRET@bucket", "s3:///bucket"),
        (
            "s3://K:S@b/w?region=eu-west-1&secret_key=S&scheme=http&endpoint_override=host:9000",
            "s3://b/w?region=eu-west-1&scheme=http&endpoint_override=host:9000",
        ),
        ("s3://b/w?endpoint_override=http://me:pw@host", "s3://b/w?endpoint_override=http://host"),
        ("abfs://account/c?client_secret=S&sas_token=T", "abfs://account/c"),
        (
            "cannot open 's3://K:S@b/w?token=T' nor \"gs://me:pw@b\": no route",
            "cannot open 's3://b/w' nor \"gs://b\": no route",
        ),
        # What is no secret stays as it is.
        ("http://127.0.0.1:8000/v2", "http://127.0.0.1:8000/v2"),
        ("s3://bucket/na@me", "s3://bucket/na@me"),
        ("walk", "walk"),
        ("expected 3, got: a/b@c", "expected 3, got: a/b@c"),
    ],
)
def test_users_passwords_and_tokens_are_left_out(uri: str, shown: str) -> None:
    assert without_secrets(uri) == shown


_WORDS = st.text("abcXYZ019+/=%-_.@?:", min_size=1)


@given(_WORDS, _WORDS, st.sampled_from(["s3", "gs", "abfss"]))
def test_no_secret_is_left(key: str, secret: str, scheme: str) -> None:
    user = "".join(letter for letter in key if letter.isalnum())
    uri = f"{scheme}://{user}:{secret}!Q@bucket/data?secret_key=!Q"
    assert without_secrets(f"got {uri}, which is") == f"got {scheme}://bucket/data which is"
