"""Every setting is declared, checked and documented."""

from __future__ import annotations

import pickle
from dataclasses import FrozenInstanceError
from enum import IntEnum, StrEnum
from typing import Any

import pytest

from upshot.errors import ConfigError, UnknownSettingError, UrlError
from upshot.settings import SETTINGS, Setting, Settings
from upshot.spelling import hint, is_misspelt
from upshot.typed_text import split_optional


class Name(StrEnum):
    SHOP = "shop"


class Count(IntEnum):
    TWO = 2


def test_without_any_setting_the_defaults_hold() -> None:
    settings = Settings()

    assert {name: getattr(settings, name) for name in SETTINGS} == {
        name: setting.default for name, setting in SETTINGS.items()
    }
    assert settings.broker_url is None
    assert settings.result_expires == 86_400.0
    assert settings.accept_content == ("json",)


@pytest.mark.parametrize("setting", SETTINGS.values(), ids=lambda setting: setting.name)
def test_every_setting_is_fully_declared(setting: Setting) -> None:
    assert setting.doc.endswith(".")
    assert setting.kind.endswith("| None") == setting.optional
    assert setting.check(setting.default) == setting.default
    kind = split_optional(setting.annotation)[0]
    assert (kind is float) == (setting.unit == "seconds")
    assert kind not in (int, float) or setting.low is not None


@pytest.mark.parametrize(
    ("name", "given", "value"),
    [
        ("result_expires", 5, 5.0),
        ("result_expires", None, None),
        ("result_expires", 0.001, 0.001),
        ("task_retry_backoff", 0, 0.0),
        ("task_default_priority", 9, 9),
        ("task_max_retries", None, None),
        ("task_max_retries", 0, 0),
        ("worker_concurrency", None, None),
        ("accept_content", ["json", "msgpack"], ("json", "msgpack")),
        ("namespace", Name.SHOP, "shop"),
        ("worker_threads", Count.TWO, 2),
        ("broker_url", "redis://:pw@h", "redis://:pw@h"),
    ],
)
def test_values_of_the_right_type_are_taken(name: str, given: Any, value: object) -> None:
    found = getattr(Settings().updated(**{name: given}), name)

    assert found == value
    assert isinstance(found, type(value))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("result_expires", 0),
        ("result_expires", -1.0),
        ("result_expires", float("nan")),
        ("result_expires", float("inf")),
        ("result_expires", 10**400),
        ("result_expires", True),
        ("result_expires", "60"),
        ("operation_timeout", None),
        ("operation_timeout", 0.0),
        ("worker_lease", 0.5),
        ("worker_threads", 0),
        ("worker_threads", True),
        ("worker_threads", 1.0),
        ("worker_threads", None),
        ("worker_concurrency", 0),
        ("task_default_priority", -1),
        ("task_default_priority", 10),
        ("task_max_retries", -1),
        ("task_ignore_result", 1),
        ("task_ignore_result", "yes"),
        ("namespace", ""),
        ("namespace", " "),
        ("namespace", None),
        ("namespace", b"shop"),
        ("task_default_queue", "a\nb"),
        ("task_default_queue", "\ud800"),
        ("accept_content", "json"),
        ("accept_content", []),
        ("accept_content", ["json", 3]),
        ("accept_content", {"json"}),
    ],
)
def test_a_wrong_value_is_refused_with_the_name_and_what_was_expected(
    name: str, value: Any
) -> None:
    with pytest.raises(ConfigError) as caught:
        Settings().updated(**{name: value})

    assert str(caught.value).startswith(f"{name} must be {SETTINGS[name].expected}; got ")


def test_what_was_expected_has_type_unit_and_bounds() -> None:
    assert SETTINGS["namespace"].expected == "printable text"
    assert SETTINGS["task_default_priority"].expected == "a whole number (at least 0, at most 9)"
    expires = SETTINGS["result_expires"].expected
    assert expires == "a finite number (seconds, at least 0.001), or none"


@pytest.mark.parametrize("value", ["", "hunter2", "redis://:hunter2", ["redis://:hunter2@h"], 5])
@pytest.mark.parametrize("name", ["broker_url", "result_backend"])
def test_a_wrong_url_is_refused_by_name_and_not_shown(name: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=f"^{name}") as caught:
        Settings().updated(**{name: value})

    assert isinstance(caught.value, UrlError) == isinstance(value, str)
    assert "hunter2" not in str(caught.value)


def test_a_url_in_a_wrong_place_is_masked_and_a_long_value_cut() -> None:
    with pytest.raises(ConfigError) as caught:
        Settings(namespace="redis://:hunter2@h\n" + "x" * 1000)

    assert "hunter2" not in str(caught.value)
    assert len(str(caught.value)) < 200


def test_a_soft_limit_at_or_after_the_hard_one_is_refused() -> None:
    assert Settings(task_soft_time_limit=1, task_time_limit=2).task_soft_time_limit == 1.0
    with pytest.raises(ConfigError, match=r"task_soft_time_limit .* less than task_time_limit"):
        Settings(task_soft_time_limit=2, task_time_limit=2)


@pytest.mark.parametrize("name", ["task_serializer", "result_serializer"])
def test_a_serializer_that_is_not_accepted_is_refused(name: str) -> None:
    wanted = {name: "pickle"}

    allowed = Settings().updated(accept_content=["json", "pickle"], **wanted)

    assert getattr(allowed, name) == "pickle"
    with pytest.raises(ConfigError, match=f"{name} is 'pickle', which accept_content"):
        Settings().updated(**wanted)


def test_settings_cannot_be_changed_but_copied_with_changes() -> None:
    settings = Settings()

    changed = settings.updated(result_expires=5, namespace="shop")

    assert (changed.result_expires, changed.namespace) == (5.0, "shop")
    assert settings == Settings() != changed
    assert pickle.loads(pickle.dumps(changed)) == changed
    with pytest.raises(FrozenInstanceError):
        settings.namespace = "other"  # type: ignore[misc]  # that is what is tested
    with pytest.raises(UnknownSettingError, match=r"'result_expire'.*'result_expires'"):
        settings.updated(result_expire=5)


def test_the_repr_shows_what_differs_and_no_password() -> None:
    settings = Settings(broker_url="redis://:hunter2@h", result_expires=None)

    assert repr(settings) == "Settings(broker_url='redis://:***@h', result_expires=None)"
    assert repr(Settings()) == str(Settings()) == "Settings()"


@pytest.mark.parametrize(
    ("name", "written"),
    [
        ("result_expire", "did you mean 'result_expires'?"),
        ("RESULT_BACKEND", "did you mean 'result_backend'?"),
        ("CELERY_RESULT_BACKEND", "did you mean 'result_backend'?"),
        ("broker", "here it is called 'broker_url'"),
        ("task_default_retry_delay", "here it is called 'task_retry_backoff'"),
        ("timezone", "times are always UTC"),
        ("zzz", "`upshot config` lists them all"),
    ],
)
def test_a_name_that_is_no_setting_gets_a_hint(name: str, written: str) -> None:
    assert hint(name, SETTINGS) == written


@pytest.mark.parametrize("name", ["result_expire", "broker_uri", "task_acks_late", "timezone"])
def test_near_names_and_celerys_names_are_taken_for_settings(name: str) -> None:
    assert is_misspelt(name, SETTINGS)


@pytest.mark.parametrize("name", ["results", "worker", "queue", "names", "namespace", "x"])
def test_settings_and_ordinary_names_are_not_misspelt(name: str) -> None:
    assert not is_misspelt(name, SETTINGS)
