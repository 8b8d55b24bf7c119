"""Sources of settings: which one wins, and what each refuses."""

from __future__ import annotations

import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from upshot.config import Configuration
from upshot.errors import ConfigError, UnknownSettingError, UrlError
from upshot.settings import SETTINGS, Settings


def configured(environment: dict[str, str] | None = None, /, **keywords: Any) -> Configuration:
    return Configuration(keywords, environment or {})


def toml(folder: Path, text: str, name: str = "upshot.toml") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def module(**variables: object) -> types.ModuleType:
    made = types.ModuleType("myconfig")
    vars(made).update(variables)
    return made


def test_with_no_source_everything_is_default() -> None:
    config = configured()

    assert config.settings == Settings()
    assert config.sources == dict.fromkeys(SETTINGS, "default")


def test_keyword_beats_environment_beats_object_beats_file(tmp_path: Path) -> None:
    names = ["worker_threads", "task_max_retries", "worker_concurrency", "task_max_deliveries"]
    file = toml(tmp_path, "".join(f"{name} = 4\n" for name in names))
    config = configured(
        {"UPSHOT_WORKER_THREADS": "2", "UPSHOT_TASK_MAX_RETRIES": "2"}, worker_threads=1
    )

    config.add_object(module(**dict.fromkeys(names[:3], 3)))
    config.add_file(file)

    assert [getattr(config.settings, name) for name in names] == [1, 2, 3, 4]
    assert [config.sources[name] for name in names] == [
        "keyword",
        "environment UPSHOT_TASK_MAX_RETRIES",
        "module myconfig",
        f"file {file}",
    ]


def test_of_two_objects_or_two_files_the_later_wins(tmp_path: Path) -> None:
    config = configured()

    config.add_object({"worker_threads": 2, "namespace": "first"})
    assert config.settings.worker_threads == 2
    config.add_object({"worker_threads": 3})
    assert config.settings.worker_threads == 3
    config.add_file(toml(tmp_path, "worker_lease = 2\nworker_concurrency = 2"))
    config.add_file(toml(tmp_path, "worker_lease = 3", "other.toml"))

    settings = config.settings
    assert (settings.worker_threads, settings.namespace) == (3, "first")
    assert (settings.worker_lease, settings.worker_concurrency) == (3.0, 2)


def test_none_is_a_value_and_not_the_absence_of_one() -> None:
    config = configured({"UPSHOT_RESULT_EXPIRES": "60"}, result_expires=None)

    assert config.settings.result_expires is None
    assert config.sources["result_expires"] == "keyword"


def test_the_environment_is_read_by_type() -> None:
    config = configured(
        {
            "PATH": "/bin",
            "UPSHOT_RESULT_EXPIRES": "none",
            "UPSHOT_BROKER_URL": "",
            "UPSHOT_WORKER_THREADS": "2",
            "UPSHOT_OPERATION_TIMEOUT": "2",
            "UPSHOT_TASK_TRACK_QUEUED": "off",
            "UPSHOT_ACCEPT_CONTENT": "json, msgpack",
        }
    )

    assert config.settings == Settings(
        result_expires=None,
        worker_threads=2,
        operation_timeout=2.0,
        task_track_queued=False,
        accept_content=("json", "msgpack"),
    )
    assert config.sources["broker_url"] == "environment UPSHOT_BROKER_URL"


def test_without_a_mapping_the_environment_of_the_process_is_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("UPSHOT_WORKER_THREADS", "7")

    assert Configuration({}).settings.worker_threads == 7


@pytest.mark.parametrize(
    "variable",
    [
        "UPSHOT_APP",
        "UPSHOT_LOG_LEVEL",
        "UPSHOT_NO_COLOR",
        "UPSHOT_CONFORMANCE_URL_REDIS",
        "UPSHOT_SERVICES_DIR",
        "UPSHOT_TEST_ANYTHING",
        "UPSHOT_SERVICE_HOST",
        "UPSHOT_SERVICE_PORT_HTTP",
        "UPSHOT_PORT",
        "UPSHOT_REDIS_SERVICE_PORT",
        "UPSHOT_REDIS_PORT_6379_TCP_ADDR",
    ],
)
def test_variables_of_others_are_passed_over(variable: str) -> None:
    assert configured({variable: "x"}).settings == Settings()


@pytest.mark.parametrize(
    ("variable", "hint"),
    [
        ("UPSHOT_RESULT_EXPIRE", "did you mean 'result_expires'"),
        ("UPSHOT_BROKER", "here it is called 'broker_url'"),
        ("UPSHOT_APPLICATION", "lists them all"),
        ("UPSHOT_PORTX", "lists them all"),
        ("UPSHOT_result_expires", "did you mean 'result_expires'"),
        ("UPSHOT_", "lists them all"),
    ],
)
def test_a_misspelt_variable_is_an_error(variable: str, hint: str) -> None:
    with pytest.raises(UnknownSettingError, match=f"^environment {variable}: .*{hint}"):
        configured({variable: "x"})


@pytest.mark.parametrize("text", ["", "none", "1.5", "0", "x"])
def test_a_wrong_variable_is_named_with_what_was_expected(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        configured({"UPSHOT_WORKER_THREADS": text})

    assert str(caught.value) == (
        "environment UPSHOT_WORKER_THREADS: worker_threads must be a whole number (at least 1); "
        f"got {int(text) if text == '0' else text!r}"
    )


SOURCES: list[Callable[[dict[str, Any], Path], object]] = [
    lambda values, _: Configuration(values, {}),
    lambda values, _: configured().add_object(values),
    lambda values, _: configured().add_object(module(**values)),
    lambda values, folder: configured().add_file(
        toml(folder, "".join(f"{name} = {value!r}\n" for name, value in values.items()))
    ),
]


@pytest.mark.parametrize("source", SOURCES, ids=["keyword", "mapping", "module", "file"])
def test_each_source_refuses_an_unknown_name_a_wrong_value_and_a_wrong_url(
    source: Callable[[dict[str, Any], Path], object], tmp_path: Path
) -> None:
    start = r"^(keyword|mapping|module myconfig|file \S*upshot\.toml): "

    with pytest.raises(UnknownSettingError, match=start + ".*'result_expire'.*'result_expires'"):
        source({"result_expire": 1}, tmp_path)
    with pytest.raises(UnknownSettingError, match=start + ".*'task_track_started'; STARTED is"):
        source({"task_track_started": 1}, tmp_path)
    with pytest.raises(ConfigError, match=start + "worker_threads must be a whole number"):
        source({"worker_threads": "2"}, tmp_path)
    with pytest.raises(UrlError, match=start + "broker_url: cannot read the URL") as caught:
        source({"broker_url": "redis://:hunter2"}, tmp_path)
    assert "hunter2" not in str(caught.value)


def test_a_module_may_have_variables_of_its_own() -> None:
    config = configured()

    config.add_object(
        module(
            namespace="shop",
            results=1,
            RESULT_EXPIRE=1,
            _result_expire=1,
            result_expire=lambda: 1,
            broker=types.ModuleType("broker"),
            backend=Settings,
        )
    )

    assert config.settings == Settings(namespace="shop")


def test_a_mapping_may_hold_nothing_but_settings() -> None:
    with pytest.raises(UnknownSettingError, match="no setting 'results'"):
        configured().add_object({"results": 1})


def test_a_module_is_imported_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    toml(tmp_path, "import os\nnamespace = 'shop'\n", "upshot_test_shop_config.py")
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    config = configured()

    try:
        config.add_object("upshot_test_shop_config")
    finally:
        sys.modules.pop("upshot_test_shop_config", None)

    assert config.settings.namespace == "shop"
    assert config.sources["namespace"] == "module upshot_test_shop_config"


@pytest.mark.parametrize("name", ["upshot_no_such_module", "", ".relative", "a..b", "a:b"])
def test_a_module_that_cannot_be_imported_is_a_config_error(name: str) -> None:
    with pytest.raises(ConfigError, match="module"):
        configured().add_object(name)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("upshot.toml", "namespace = 'shop'"),
        ("upshot.toml", "[upshot]\nnamespace = 'shop'\n[other]\nx = 1"),
        ("all.toml", "x = 1\n[tool.upshot]\nnamespace = 'shop'"),
        ("pyproject.toml", "[project]\nname = 'x'\n[tool.upshot]\nnamespace = 'shop'"),
    ],
)
def test_a_file_has_its_settings_in_a_table_or_at_the_top(
    name: str, text: str, tmp_path: Path
) -> None:
    config = configured()

    config.add_file(str(toml(tmp_path, text, name)))

    assert config.settings == Settings(namespace="shop")


def test_a_file_writes_none_as_text_and_lists_as_lists(tmp_path: Path) -> None:
    config = configured(broker_url="memory://")

    config.add_file(
        toml(
            tmp_path,
            'result_expires = "none"\nresult_backend = "none"\nnamespace = "none"\n'
            'accept_content = ["json", "msgpack"]\n',
        )
    )

    settings = config.settings
    assert (settings.result_expires, settings.result_backend) == (None, None)
    assert (settings.namespace, settings.accept_content) == ("none", ("json", "msgpack"))


@pytest.mark.parametrize(
    ("name", "content", "because"),
    [
        ("upshot.toml", b"namespace = ", "cannot read the settings in"),
        ("upshot.toml", b"namespace = '\xff'", "cannot read the settings in"),
        ("upshot.toml", b"upshot = 1", "must be a table"),
        ("all.toml", b"[tool]\nupshot = 1", "must be a table"),
        ("upshot.toml", b"[upshot]\nnamespace = 2020-01-01", "namespace must be printable text"),
        ("upshot.toml", b"worker_threads = 'none'", "worker_threads must be a whole number"),
        ("pyproject.toml", b"[project]\nname = 'x'", r"no table \[tool.upshot\]"),
    ],
)
def test_a_wrong_file_is_a_config_error(
    name: str, content: bytes, because: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(content)

    with pytest.raises(ConfigError, match=because):
        configured().add_file(tmp_path / name)


def test_a_missing_file_is_a_config_error_with_its_cause(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.toml") as caught:
        configured().add_file(tmp_path / "none.toml")

    assert isinstance(caught.value.__cause__, FileNotFoundError)


def test_a_source_with_one_error_changes_nothing(tmp_path: Path) -> None:
    config = configured()

    with pytest.raises(ConfigError):
        config.add_object({"namespace": "shop", "worker_threads": 0})
    with pytest.raises(ConfigError):
        config.add_file(toml(tmp_path, "namespace = 'shop'\nworker_threads = 0"))

    assert config.settings == Settings()


def test_values_of_two_sources_that_contradict_each_other_are_refused() -> None:
    config = configured({"UPSHOT_TASK_TIME_LIMIT": "5"}, task_soft_time_limit=10)

    with pytest.raises(ConfigError, match="task_soft_time_limit"):
        _ = config.settings


def test_explain_has_every_setting_with_its_source_and_no_password() -> None:
    config = configured({"UPSHOT_RESULT_BACKEND": "redis://:hunter2@h"}, broker_url="amqp://a:b@c")

    rows = {row.setting.name: row for row in config.explain()}

    assert list(rows) == list(SETTINGS)
    assert rows["result_backend"].value == "redis://:***@h"
    assert rows["result_backend"].source == "environment UPSHOT_RESULT_BACKEND"
    assert rows["broker_url"].value == "amqp://a:***@c"
    assert (rows["namespace"].value, rows["namespace"].source) == ("upshot", "default")
    assert "hunter2" not in repr(rows)
    assert "hunter2" not in repr(config) + str(config)
