"""What follows `upshot+`: any URL of upshot that keeps results; and what cannot be one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.contrib.celery import jobs
from tests.contrib.celery.untyped import ImproperlyConfigured
from upshot.errors import ServiceUnavailableError


def app_on(backend: str, **settings: Any) -> Any:
    return jobs.make("memory://", backend, queue="q", **settings)


@pytest.mark.parametrize("form", ["upshot+sqlite:///{}", "upshot+db+sqlite:///{}"])
def test_an_absolute_path_names_a_file(tmp_path: Path, form: str) -> None:
    app = app_on(form.format(tmp_path / "results.db"))
    app.backend.mark_as_done("one", 1)
    app.backend.close()

    assert (tmp_path / "results.db").exists()


def test_a_relative_path_counts_from_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    app = app_on("upshot+sqlite:///results.db")
    app.backend.mark_as_done("one", 1)
    app.backend.close()

    assert (tmp_path / "results.db").exists()


def test_a_scheme_may_have_a_plus_of_its_own() -> None:
    app = app_on("upshot+mongodb+srv://cluster.example.org/db")

    assert app.backend.as_uri() == "upshot+mongodb+srv://cluster.example.org/db"


@pytest.mark.parametrize(
    ("url", "what"),
    [
        ("upshot", "is a URL: upshot\\+redis://localhost"),
        ("upshot+nosuch://host", "no result backend serves nosuch:// URLs"),
        ("upshot+rediss://:secret@host:port", "a port is not a number"),
        ("upshot+amqp://host", "choose a service that keeps them"),
    ],
)
def test_what_cannot_be_a_backend_is_refused_at_once(url: str, what: str) -> None:
    with pytest.raises(ImproperlyConfigured, match=what) as caught:
        _ = app_on(url).backend

    assert "secret" not in str(caught.value)


def test_a_password_is_in_no_error() -> None:
    app = app_on(
        "upshot+redis://:pa55word@127.0.0.1:1/0",
        result_backend_transport_options={"upshot_timeout": 0.1},
    )

    with pytest.raises(ServiceUnavailableError) as caught:
        _ = app.AsyncResult("one").state

    assert "pa55word" not in repr(caught.value) + str(caught.value) + str(caught.value.__cause__)
    assert app.backend.as_uri() == "upshot+redis://:***@127.0.0.1:1/0"
    app.backend.close()


def test_a_password_is_in_no_report_of_celerys() -> None:
    app = app_on(
        "upshot+redis://:pa55word@127.0.0.1:1/0",
        result_backend_transport_options={
            "upshot_earlier_backend": "redis://:pa55word@127.0.0.1:2/0"
        },
    )

    report: str = app.bugreport()

    assert "127.0.0.1:2" in report
    assert "pa55word" not in report
