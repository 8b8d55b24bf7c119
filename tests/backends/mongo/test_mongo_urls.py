"""What a MongoDB URL means, read without any I/O."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from upshot.errors import UrlError
from upshot.registry import backend_class
from upshot.url import Url
from upshot_backends.mongo.driver import Settings, read_url
from upshot_backends.mongo.results import MongoBackend

_PASSWORD = "s3cret-w0rd"


def _settings(text: str) -> Settings:
    return read_url(Url.parse(text))


@pytest.mark.parametrize(
    ("scheme", "theirs"),
    [
        ("mongodb", "mongodb"),
        ("mongodb+srv", "mongodb+srv"),
        ("mongo", "mongodb"),
        ("mongo+srv", "mongodb+srv"),
    ],
)
def test_every_scheme_is_served_by_one_class(scheme: str, theirs: str) -> None:
    url = Url.parse(f"{scheme}://cluster.example.org/db?appName=mine&upshot_collection=jobs")
    settings = read_url(url)

    assert backend_class(url) is MongoBackend
    assert settings.address == f"{theirs}://cluster.example.org/db?appName=mine"
    assert (settings.database, settings.collection) == ("db", "jobs")


def test_what_the_url_leaves_out_has_a_default() -> None:
    settings = _settings("mongodb://localhost")

    assert (settings.database, settings.collection) == ("upshot", "results")
    assert settings.keywords["appname"] == "upshot"
    assert settings.keywords["retryWrites"] is False


def test_what_the_url_says_is_left_alone() -> None:
    said = "appName=mine&serverMonitoringMode=stream&connectTimeoutMS=1"
    keywords = _settings(f"mongodb://localhost/?{said}&upshot_collection=c").keywords

    assert keywords.keys() == {"connect", "retryReads", "retryWrites", "socketTimeoutMS"}


_LASTING = {"w": "majority"}


@pytest.mark.parametrize(
    ("query", "lasting", "passing"),
    [
        ("", _LASTING, {"w": 1}),
        ("w=1", {"w": 1}, {"w": 1}),
        ("w=2&wTimeoutMS=50", {"w": 2, "wtimeout": 50}, {"w": 2, "wtimeout": 50}),
        ("w=majority", _LASTING, _LASTING),
        ("w=eu-west", {"w": "eu-west"}, {"w": "eu-west"}),
        ("journal=true", _LASTING | {"j": True}, {"w": 1, "j": True}),
        ("readConcernLevel=local", _LASTING, {"w": 1}),
        ("readConcernLevel=majority", _LASTING, _LASTING),
        ("readConcernLevel=linearizable&journal=true",) + (_LASTING | {"j": True},) * 2,
    ],
)
def test_the_write_concern_of_the_url_holds(
    query: str, lasting: Mapping[str, Any], passing: Mapping[str, Any]
) -> None:
    settings = _settings(f"mongodb://localhost/?{query}")

    assert (settings.lasting, settings.passing) == (lasting, passing)


@pytest.mark.parametrize(
    ("url", "word"),
    [
        ("mongodb://localhost/?w=0", "w=0"),
        ("mongodb://localhost/?readPreference=secondaryPreferred", "primary"),
        ("mongodb://localhost/?READPREFERENCE=nearest", "primary"),
        ("mongodb://localhost/?readConcernLevel=majority&w=1", "readConcernLevel=majority"),
        ("mongodb://localhost/?relicaSet=rs", "relicaSet"),
        ("mongodb://localhost/?tls=maybe", "tls"),
        ("mongodb://localhost/?tls=true&tlsInsecure=true&tlsAllowInvalidHostnames=true", "tls"),
        ("mongodb://localhost/?srvServiceName=x", "srvServiceName"),
        ("mongodb://localhost/da$ta", "database"),
        ("mongodb://localhost/data.results", "upshot_collection=results"),
        ("mongodb://localhost/?upshot_colection=x", "upshot_collection"),
        ("mongodb://localhost/?upshot_collection=$x", "upshot_collection"),
        ("mongodb://localhost/?upshot_collection=system.users", "upshot_collection"),
        ("mongodb://a/;mongodb://b/", "pymongo does not take this"),
        ("mongodb+srv://one,two/", "one host"),
        ("mongodb+srv://one.example.org:27017/", "one host"),
        ("mongodb+srv://one.example.org/?srvMaxHosts=many", "srvMaxHosts"),
        ("mongo+tls://localhost/", "schemes"),
        (f"mongodb://user:{_PASSWORD}@localhost/?nonsense=1", "nonsense"),
        (f"mongodb://us%er:{_PASSWORD}@localhost/", "escaped"),
    ],
)
def test_a_url_that_cannot_work_is_refused_without_connecting(url: str, word: str) -> None:
    with pytest.raises(UrlError, match=word.replace("$", r"\$")) as refused:
        MongoBackend(Url.parse(url))

    assert _PASSWORD not in f"{refused.value} {refused.value.__cause__}"


def test_parameters_for_the_dns_are_taken() -> None:
    MongoBackend(Url.parse("mongodb+srv://one.example.org/?srvMaxHosts=2&w=1&srvServiceName=x"))


def test_a_file_that_is_not_there_is_named_with_its_parameter() -> None:
    with pytest.raises(UrlError, match="tlsCAFile"):
        _settings("mongodb://localhost/?tls=true&tlsCAFile=/nowhere/ca.pem")
