"""What `Url` reads, what it hands on, and what it refuses."""

from __future__ import annotations

import copy
import pickle
from dataclasses import dataclass, field

import pytest

from upshot.errors import ConfigError, UrlError
from upshot.url import Url

PLAIN_URLS = [
    "memory://",
    "rpc://",
    "sqlite:///rel.db",
    "sqlite:////abs.db",
    "sqlite:///:memory:",
    "db+sqlite:///x.db",
    "sqlite:////srv/me@corp/x.db",
    "redis://:secret@host:6380/2?socket_timeout=1",
    "rediss://host",
    "redis+unix:///run/redis.sock?db=1",
    "redis+sentinel://:pw@h1:26379,h2:26379/mymaster/0",
    "memcached://h1:11211,h2:11211",
    "cache+memcached://h1:11211;h2:11211/",
    "postgresql+psycopg://user:p%40ss@host/db?sslmode=require",
    "postgresql://u:p@/db?host=%2Fvar%2Frun",
    "oracle+cx_oracle://u:p@h/db",
    "mongodb://u:p@h1,h2:27017/db?replicaSet=rs0",
    "pyamqp://guest@localhost//",
    "amqp://u:p@h/%2F",
    "amqp://u:p@h1//;amqp://u:q@h2//",
    "django-db://?using=other",
    "redis://[::1]:6379/0",
    "redis://u:p@ss@host/0",
    "memory://?",
    "mongodb://h/?w=a+b&empty=&flag&w=1",
]


@pytest.mark.parametrize("text", PLAIN_URLS)
def test_the_driver_receives_every_byte_as_written(text: str) -> None:
    assert Url.parse(text).driver_url() == text


@pytest.mark.parametrize(
    ("text", "hosts"),
    [
        ("memory://", ()),
        ("sqlite:///rel.db", ()),
        ("redis://host", (("host", None),)),
        ("redis://host:6380/2", (("host", 6380),)),
        ("redis://:pw@h1:26379,h2/mymaster", (("h1", 26379), ("h2", None))),
        ("memcached://h1:1;h2:2/", (("h1", 1), ("h2", 2))),
        ("redis://[::1]:6379/0", (("::1", 6379),)),
        ("redis://[fe80::1%25eth0]", (("fe80::1%eth0", None),)),
        ("mongodb://%2Ftmp%2Fm.sock/db", (("/tmp/m.sock", None),)),
        ("redis://u:p@h1,v:q@h2:99/0", (("h1", None), ("h2", 99))),
        ("amqp://u:p@h1//;amqp://u:q@h2:5673//", (("h1", None), ("h2", 5673))),
    ],
)
def test_hosts_are_read_from_one_url_a_list_or_a_fail_over(
    text: str, hosts: tuple[tuple[str, int | None], ...]
) -> None:
    assert Url.parse(text).hosts == hosts


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("redis://h", ""),
        ("redis://h/2?a=b", "/2"),
        ("sqlite:///rel.db", "/rel.db"),
        ("sqlite:////abs.db", "//abs.db"),
        ("pyamqp://guest@localhost//", "//"),
        ("amqp://h/%2F", "/%2F"),
    ],
)
def test_the_path_is_kept_as_written(text: str, path: str) -> None:
    assert Url.parse(text).path == path


@pytest.mark.parametrize(
    ("text", "username", "password"),
    [
        ("redis://h", None, None),
        ("redis://:s@h", None, "s"),
        ("pyamqp://guest@h//", "guest", None),
        ("postgresql://us%65r:p%40s%2Fs@h", "user", "p@s/s"),
        ("redis://u:p@ss@h", "u", "p@ss"),
        ("redis://u:a:b@h", "u", "a:b"),
        ("redis://u:@h", "u", ""),
        ("redis://u:p@h1,v:q@h2", "u", "p"),
    ],
)
def test_user_and_password_are_decoded(
    text: str, username: str | None, password: str | None
) -> None:
    url = Url.parse(text)

    assert (url.username, url.password) == (username, password)


def test_the_scheme_is_lower_case_and_a_distribution_is_taken_out() -> None:
    url = Url.parse("Redis@My-dist://:pw@h/0?upshot_lease=1")

    assert url.scheme == "redis"
    assert url.distribution == "My-dist"
    assert url.driver_url() == "redis://:pw@h/0"


def test_a_driver_can_be_given_another_scheme() -> None:
    url = Url.parse("pyamqp://u:p%2F@a//;pyamqp://u:q@b//")

    assert url.driver_url("amqp") == "amqp://u:p%2F@a//;amqp://u:q@b//"


def test_our_parameters_never_reach_the_driver() -> None:
    url = Url.parse("redis://h/0?b=1%20&upshot_lease=2&a=x+y&a=2&Upshot_Other=3")

    assert url.driver_url() == "redis://h/0?b=1%20&a=x+y&a=2"
    assert url.query == (("b", "1 "), ("a", "x y"), ("a", "2"))
    assert url.options == {"lease": "2", "Other": "3"}
    assert Url.parse("redis://h?upshot_lease=2").driver_url() == "redis://h"


@pytest.mark.parametrize(
    ("value", "because"),
    [
        ("", "empty"),
        ("localhost:6379", "no scheme"),
        ("redis", "no scheme"),
        ("redis:/h", "no scheme"),
        ("://h", "no scheme"),
        ("1redis://h", "no scheme"),
        ("redis://h /0", "space"),
        (" redis://h", "space"),
        ("redis://h\n", "control"),
        ("redis://h\x00", "control"),
        ("redis://h\u2028", "control"),
        ("redis://h%0afake", "control"),
        ("redis://h:", "port"),
        ("redis://h:0", "port"),
        ("redis://h:65536", "port"),
        ("redis://h:٣", "port"),
        ("redis://h:" + "9" * 5000, "port"),
        ("redis://h:http", "port"),
        ("redis://h1,,h2", "host is empty"),
        ("redis://:6379/0", "host is empty"),
        ("redis://::1", "host is empty"),
        ("redis://a::1", "brackets"),
        ("redis://[::1", "brackets"),
        ("redis://[::g]", "brackets"),
        ("redis://u:a#b@h", "%23"),
        ("redis://:a/b@h", "%2F"),
        ("redis://u:12/b@h", "%2F"),
        ("redis://u:12?b@h", "%3F"),
        ("redis://u:a@b/c@h", "%2F"),
        ("redis:///:pw@h", "%40"),
        ("redis://a;rediss://b", "one scheme"),
        ("redis://h?upshot_a=1&upshot_a=1", "'upshot_a' is given twice"),
        (b"redis://h", "bytes"),
        (None, "NoneType"),
    ],
)
def test_what_is_no_url_is_refused_with_a_reason_and_an_example(value: str, because: str) -> None:
    with pytest.raises(UrlError, match=because) as caught:
        Url.parse(value)

    assert isinstance(caught.value, ConfigError)
    assert str(caught.value).endswith("; a URL looks like redis://:password@localhost:6379/0")


@dataclass(frozen=True)
class Options:
    """Every type that an option can have."""

    table: str = "results"
    count: int = 1
    lease: float = 1.0
    create: bool = True
    limit: int | None = 5
    tables: tuple[str, ...] = field(default=())

    def __post_init__(self) -> None:
        if self.count < 0:
            raise ValueError("upshot_count is zero or more")


def test_options_left_out_have_their_defaults() -> None:
    assert Url.parse("memory://").read_options(Options) == Options()


def test_options_are_read_by_the_types_of_their_fields() -> None:
    query = "upshot_table=a%20b&upshot_count=-0&upshot_lease=2&upshot_create=OFF&upshot_limit=none"

    options = Url.parse(f"memory://?{query}&upshot_tables=a,b").read_options(Options)

    assert options == Options("a b", 0, 2.0, False, None, ("a", "b"))
    assert type(options.lease) is float


@pytest.mark.parametrize(
    ("query", "sentence"),
    [
        ("upshot_leese=1", "unknown option 'upshot_leese'; did you mean 'upshot_lease'?"),
        ("upshot_LEASE=1", "unknown option 'upshot_LEASE'; did you mean 'upshot_lease'?"),
        ("upshot_zzz=1", "it knows 'upshot_count', 'upshot_create', 'upshot_lease'"),
        ("upshot_count=1.5", "'upshot_count' .* is '1.5'; it must be a whole number"),
        ("upshot_count", "'upshot_count' .* is ''; it must be a whole number"),
        ("upshot_lease=nan", "'upshot_lease' .* is 'nan'; it must be a finite number"),
        ("upshot_lease=1e999", "must be a finite number"),
        ("upshot_create=maybe", "must be true or false"),
        ("upshot_limit=x", "must be a whole number, or none"),
        ("upshot_count=-1", "upshot_count is zero or more"),
    ],
)
def test_a_wrong_option_is_named_with_what_was_expected(query: str, sentence: str) -> None:
    url = Url.parse(f"memory://?{query}")

    with pytest.raises(UrlError, match=sentence):
        url.read_options(Options)


def test_a_service_without_options_refuses_any() -> None:
    @dataclass(frozen=True)
    class NoOptions:
        pass

    url = Url.parse("memory://?upshot_lease=1")

    with pytest.raises(UrlError, match="it has none"):
        url.read_options(NoOptions)


def test_equality_and_hash_go_by_content() -> None:
    url = Url.parse("REDIS://u:p@h/0?upshot_a=1&b=2")

    assert url == Url.parse("redis://u:p@h/0?b=2&upshot_a=1")
    assert hash(url) == hash(Url.parse("redis://u:p@h/0?b=2&upshot_a=1"))
    for other in ("redis://u:q@h/0?b=2&upshot_a=1", "redis://u:p@h/0?b=2&upshot_a=2"):
        assert url != Url.parse(other)


@pytest.mark.parametrize("text", PLAIN_URLS)
def test_a_pickled_or_copied_url_is_the_same_url(text: str) -> None:
    url = Url.parse(text + ("&" if "?" in text else "?") + "upshot_a=1")

    for twin in (pickle.loads(pickle.dumps(url)), copy.deepcopy(url)):
        assert twin == url
        assert (str(twin), twin.driver_url()) == (str(url), url.driver_url())


def test_a_url_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        Url.parse("memory://").scheme = "redis"  # type: ignore[misc]  # that is what is tested


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("sqlite:///x.db", "db+sqlite:///x.db"),
        ("pyamqp://u:p@h//", "amqp://u:p@H//?upshot_a=1"),
        ("mongodb://h1,h2/db?a=1&b=2", "mongodb://h2,h1/db?b=2&a=1"),
    ],
)
def test_urls_of_one_server_and_database_have_one_identity(one: str, other: str) -> None:
    assert Url.parse(one).identity == Url.parse(other).identity
    assert hash(Url.parse(one).identity) == hash(Url.parse(other).identity)


@pytest.mark.parametrize(
    "other",
    ["redis://u@h/1", "redis://v@h/0", "redis://u@g/0", "redis://u@h:1/0", "redis://u@h/0?a=1"],
)
def test_urls_of_different_databases_have_different_identities(other: str) -> None:
    assert Url.parse("redis://u@h/0").identity != Url.parse(other).identity
