"""Passwords are shown nowhere, whatever the URL around them looks like."""

from __future__ import annotations

import time
import traceback
from dataclasses import dataclass
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from upshot.errors import UrlError
from upshot.masking import is_secret_name
from upshot.url import Url, mask

# Both ends of each secret are looked for, so that half a leaked password is a failure too.
HEAD, TAIL = "Zq7Kx9Wv", "mJ4Tr8Bn"
SPECIAL = "/?#@:;,&=%+'\"<>[]{}|\\^`~!$*()-_."

# `{0}` is where the secret stands. In each of these it may be written raw.
CREDENTIALS = [
    "redis://:{0}@host:6380/2?socket_timeout=1",
    "rediss://user:{0}@host",
    "redis+sentinel://:{0}@h1:26379,h2:26379/mymaster/0",
    "redis@my-dist://:{0}@h",
    "redis://:{0}@[::1]:6379/0",
    "redis://u:{0}@h1,v:{0}@h2:99/0",
    "memcached://u:{0}@h1:11211;v:{0}@h2:11211/",
    "postgresql+psycopg://user:{0}@host/db?sslmode=require",
    "postgresql://u:{0}@/db?host=%2Frun",
    "mongodb://u:{0}@h1,h2:27017/db?replicaSet=rs0",
    "mongodb+srv://u:{0}@cluster.example/db",
    "pyamqp://guest:{0}@localhost//",
    "amqp://{0}:{0}@h/%2F",
    "amqp://u:{0}@a//;amqp://u:{0}@b//",
    "sentinel://h1:26379;sentinel://:{0}@h2:26379",
]
PARAMETERS = [
    "redis://host/0?password={0}",
    "postgresql:///db?user=u&password={0}&sslmode=require",
    "mongodb://h/?authMechanismProperties=AWS_SESSION_TOKEN:{0}",
    "mongodb://h/?tls=true&tlsCertificateKeyFilePassword={0}",
    "redis://h?p%77d={0}",
    "redis://h?A_Secret={0}",
    "redis://h?a=1;password={0}",
    "amqp://u@a//?api_key={0}&upshot_lease=1",
    "mssql+pyodbc:///?odbc_connect={0}",
    "memory://?upshot_signing_key={0}",
]
# Not one of these is a URL that can be read.
BROKEN = [
    "user:{0}@host/db",
    "redis:/:{0}@host",
    "redis://:{0}",
    "redis://host:{0}",
    "redis://host:{0}/0",
    "redis://:{0}@host:port",
    "redis://:{0}@host:99999",
    "redis://:{0} @host",
    "redis://:{0}\n@host",
    "redis://:x/{0}@host",
    "redis://u:1?{0}@host",
    "redis://:x#{0}@host",
    "redis://:{0}@[host",
    "redis:///:{0}@host/0",
    "redis://:{0}@h1,,h2",
    "amqp://u:{0}@a//;amqps://u:{0}@b//",
    "redis://:{0}@h?upshot_a=1&upshot_a=2",
]

secrets = st.text(SPECIAL, max_size=3).map(lambda middle: HEAD + middle + TAIL)


@dataclass(frozen=True)
class Options:
    lease: float = 1.0
    signing_key: int = 0


def assert_hidden(secret: str, *texts: str) -> None:
    for text in texts:
        for form in (HEAD, TAIL, secret, quote(secret, safe=""), quote_plus(secret)):
            assert form not in text


@settings(max_examples=1000, deadline=None)
@given(shape=st.sampled_from(CREDENTIALS + PARAMETERS), secret=secrets)
def test_a_password_is_in_nothing_that_a_readable_url_shows(shape: str, secret: str) -> None:
    text = shape.format(quote(secret, safe=""))
    url = Url.parse(text)
    messages = [
        f"cannot connect to {text!r}: no route",
        f"bad password {secret} of ({secret!r}), {quote(secret)}, {quote_plus(secret)}",
        f"{url.driver_url()}, {secret.lower()}",
    ]
    user = secret if shape.startswith("amqp://{0}") else ""

    if not user:
        assert_hidden(secret, str(url), repr(url), f"{url}", f"{url!r}", url.masked)
        assert_hidden(secret, mask(text), mask(messages[0]), mask(mask(text)))
        assert_hidden(secret, repr([url]), repr({"url": url}))
    assert_hidden(secret, *[url.scrub(message).replace("***", "") for message in messages])


@settings(max_examples=1000, deadline=None)
@given(shape=st.sampled_from([*CREDENTIALS, "redis:///:{0}@host/0"]), secret=secrets)
def test_mask_hides_a_password_that_was_not_percent_encoded(shape: str, secret: str) -> None:
    if "{0}:{0}" in shape:
        shape = shape.replace("{0}:{0}", "u:{0}")

    masked = mask(f"cannot connect to '{shape.format(secret)}': refused")

    assert_hidden(secret, masked)
    assert masked.startswith("cannot connect to '")
    assert masked.endswith(" refused")


@settings(max_examples=1000, deadline=None)
@given(shape=st.sampled_from(CREDENTIALS + PARAMETERS + BROKEN), secret=secrets)
def test_no_error_about_a_url_shows_its_password(shape: str, secret: str) -> None:
    if "{0}:{0}" in shape:
        shape = shape.replace("{0}:{0}", "u:{0}")
    if shape in PARAMETERS:
        secret = secret.replace("&", "")  # written raw it would begin another parameter
    for written in (secret, quote(secret, safe="")):
        try:
            url = Url.parse(shape.format(written))
            url.read_options(Options)
        except UrlError as error:
            shown = "".join(traceback.format_exception(error))
            assert_hidden(secret, str(error), repr(error), shown)
        else:
            # With an "@" inside, half a password looks like a host: redis://:half@half
            assert shape not in BROKEN or "@" in secret
            if shape not in BROKEN:
                assert_hidden(secret, str(url))


def test_a_text_without_a_scheme_is_not_quoted_as_it_may_be_a_password() -> None:
    with pytest.raises(UrlError) as caught:
        Url.parse(HEAD)

    assert_hidden(HEAD, str(caught.value))


@pytest.mark.parametrize("shape", BROKEN)
def test_what_is_called_broken_here_is_refused(shape: str) -> None:
    with pytest.raises(UrlError):
        Url.parse(shape.format(HEAD))


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("no url here, a:b@c", "no url here, a:b@c"),
        ("redis://:pw@h:1/0?a=1", "redis://:***@h:1/0?a=1"),
        ("redis://u:p@h1,v:q@h2:9/0", "redis://u:***@h1,v:***@h2:9/0"),
        ("amqp://u:p@a//;amqp://u:q@b", "amqp://u:***@a//;amqp://u:***@b"),
        ("amqp://a:1//;amqp://u:q@b", "amqp://a:1//;amqp://u:***@b"),
        ("redis://h?sslkey=/a&token=b;c&d=e", "redis://h?sslkey=/a&token=***&d=e"),
        ("see redis://:pw@h  and\thttp://x:80/y.", "see redis://:***@h  and\thttp://x:80/y."),
        ("('redis://h:6379'), redis://[::1]:6379.", "('redis://h:6379'), redis://[::1]:6379."),
        ("a='redis://u:p@h',b='redis://u:q@i'", "a='redis://u:***@h',b='redis://u:***@i'"),
        ("amqp://u@a?token=x;amqp://u:q@b", "amqp://u@a?token=***;amqp://u:***@b"),
        ("redis://h?token=a;://b", "redis://h?token=***"),
        ("redis://:a://b;x://c@h", "redis://:***@h"),
        ("redis://:forgotten-host", "redis://:***"),
        ("sqlite:////srv/me@corp/x.db", "sqlite:////srv/me@corp/x.db"),
        ("sqlite:///:memory:", "sqlite:///:memory:"),
        ("pyamqp://guest@localhost//", "pyamqp://guest@localhost//"),
        ("i'://u:?token=\x04pt/%ce?@edi:pe@h01/?token1/s://u=", "i'://u:***?token=***"),
        ("://", "://"),
        ("", ""),
    ],
)
def test_mask_changes_secrets_and_nothing_else(text: str, masked: str) -> None:
    assert mask(text) == masked
    assert mask(masked) == masked


@given(text=st.text() | st.text("a:/@?&=;,'[]*. \n"))
def test_mask_takes_any_text_and_is_idempotent(text: str) -> None:
    once = mask(text)

    assert mask(once) == once


@pytest.mark.parametrize(
    "unit", ["a", "a://", "a://:", ";a://b", "a:1,", "[", "@", "?a=", ":/", "=a://"]
)
def test_masking_a_long_hostile_text_takes_linear_time(unit: str) -> None:
    text = "x://" + unit * (400_000 // len(unit))
    started = time.monotonic()

    mask(text)

    assert time.monotonic() - started < 5  # seconds; quadratic time would be minutes


@pytest.mark.parametrize(
    "name",
    ["password", "PASSWD", "pwd", "passphrase", "client_secret", "token", "accessToken", "api-key",
     "key", "ssl_keyfile_password", "tlsCertificateKeyFilePassword", "auth", "credentials"],
)  # fmt: skip
def test_these_parameters_hold_secrets(name: str) -> None:
    assert is_secret_name(name)


@pytest.mark.parametrize(
    "name",
    ["sslkey", "ssl_keyfile", "tlsCertificateKeyFile", "passfile", "keyspace", "key_prefix",
     "authSource", "authMechanism", "socket_keepalive", "user", "db", ""],
)  # fmt: skip
def test_these_parameters_hold_no_secrets(name: str) -> None:
    assert not is_secret_name(name)


def test_scrub_hides_the_secrets_of_every_url_in_a_fail_over_list() -> None:
    url = Url.parse("amqp://u:on%65@a?token=two;amqp://u:thr%C3%A9@b")

    scrubbed = url.scrub("ONE, two, thré, thr\\xe9, thr%c3%a9 and redis://:four@h")

    assert scrubbed == "***, ***, ***, ***, *** and redis://:***@h"


def test_scrub_hides_a_secret_inside_a_secret_parameter() -> None:
    mongo = Url.parse("mongodb://h/?authMechanismProperties=A:true,AWS_SESSION_TOKEN:one")
    odbc = Url.parse("mssql+pyodbc:///?odbc_connect=UID%3Da%3BPWD%3Dtwo%3BServer%3Ds")

    assert mongo.scrub("true, one") == "true, ***"
    assert odbc.scrub("a, two on s") == "a, *** on s"


def test_scrub_leaves_text_alone_where_the_url_has_no_secret() -> None:
    assert Url.parse("redis://:@h?token=").scrub("plain text") == "plain text"


def test_a_password_of_many_ats_is_scrubbed_in_little_time() -> None:
    url = Url.parse("redis://u:" + "@" * 10_000 + "x@h")
    started = time.monotonic()

    assert "***" in url.scrub(f"no host {'@' * 10_000}x")
    assert time.monotonic() - started < 5  # seconds; one form for each @ would be minutes


def test_scrub_hides_what_a_driver_takes_for_the_host() -> None:
    url = Url.parse("postgresql://u:on@two@thr@h")

    assert url.scrub("no host two@thr@h, no host thr@h") == "no host ***@h, no host ***@h"


def test_scrub_hides_a_secret_that_was_quoted_again_and_again() -> None:
    secret = "a'b\"c\\d"
    url = Url.parse(f"redis://:{quote(secret)}@h")
    once = f"{[secret]}"
    twice = f"{[once]}"

    for text in (secret, once, twice, f"{[twice]}"):
        assert "***" in url.scrub(text)
        assert not set("bcd") & set(url.scrub(text))
