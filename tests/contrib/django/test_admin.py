"""The admin's pages: what they show, and what may be done there."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from html import unescape
from urllib.parse import quote

import pytest
from django.contrib.auth.models import Permission, User
from django.test import Client

from tests.contrib.django.project import NAMESPACE
from upshot.client import ResultClient
from upshot.content_types import compressed_as
from upshot.record import Payload
from upshot_conformance.records import failure, new_id, success, unfinished
from upshot_contrib.django.models import Result

LIST = "/admin/upshot/result/"


class SlyError(Exception):
    """Its text would be markup."""


@pytest.fixture
def browser(client: ResultClient) -> Iterator[Client]:
    """Somebody who may look at results, and no more."""
    yield login("view_result")
    User.objects.all().delete()


def login(*permissions: str) -> Client:
    user = User.objects.create_user("_".join(permissions), is_staff=True)
    user.user_permissions.set(Permission.objects.filter(codename__in=permissions))
    browser = Client()
    browser.force_login(user)
    return browser


def page(browser: Client, path: str) -> str:
    response = browser.get(path)
    assert response.status_code == 200, response.content.decode()[:2000]
    return response.content.decode()


def page_of(task_id: str) -> str:
    """Return the path of a task's page, as the admin writes it."""
    from django.contrib.admin.utils import quote as quoted

    return f"{LIST}{quote(quoted(f'{NAMESPACE}:{task_id}'))}/change/"


def test_the_list_can_be_filtered_and_searched(client: ResultClient, browser: Client) -> None:
    good, bad, begun = new_id(), new_id(), new_id()
    client.store(success(good, 7))
    client.store(failure(bad, ValueError("no")))
    client.store(unfinished(begun)._replace(name="shop.count"))

    everything = page(browser, LIST)
    failed = page(browser, f"{LIST}?state=FAILURE")
    by_id = page(browser, f"{LIST}?q={good}")
    by_name = page(browser, f"{LIST}?q=shop.count")

    assert all(task_id in everything for task_id in (good, bad, begun))
    assert (bad in failed, good in failed, begun in failed) == (True, False, False)
    assert (good in by_id, bad in by_id) == (True, False)
    assert (begun in by_name, bad in by_name) == (True, False)


def test_a_failure_is_shown_with_its_traceback_and_escaped(
    client: ResultClient, browser: Client
) -> None:
    task_id = new_id()
    try:
        raise SlyError("<script>alert(1)</script>")
    except SlyError as exc:
        client.store(failure(task_id, exc))

    shown = page(browser, page_of(task_id))

    assert "<script>alert(1)" not in shown
    assert 'raise SlyError("<script>alert(1)</script>")' in unescape(shown)
    assert "Traceback (most recent call last)" in shown


def test_a_failure_whose_text_is_no_unicode_is_shown(client: ResultClient, browser: Client) -> None:
    task_id = new_id()
    client.store(failure(task_id, FileNotFoundError("caf\udce9.txt")))  # a name in Latin 1

    assert r"caf\udce9.txt" in page(browser, page_of(task_id))


def test_a_value_is_shown_for_people(client: ResultClient, browser: Client) -> None:
    task_id = new_id()
    client.store(success(task_id, {"<b>": [1, 2.5, None]}))

    assert "{&quot;&lt;b&gt;&quot;: [1, 2.5, null]}" in page(browser, page_of(task_id))


@pytest.mark.parametrize("seconds", [None, 1e18])
def test_a_result_that_is_kept_for_ever_is_said_to_be(
    client: ResultClient, browser: Client, seconds: float | None
) -> None:
    task_id = new_id()
    client.store(success(task_id, 7), expires=seconds)

    shown = page(browser, page_of(task_id))

    assert "for ever" in shown
    assert ">None<" not in shown, "a moment that is not known is a dash"


def test_a_long_value_is_cut(client: ResultClient, browser: Client) -> None:
    task_id = new_id()
    client.store(success(task_id, "x" * 10**6))

    shown = page(browser, page_of(task_id))

    assert len(shown) < 100_000
    assert "characters are left out" in shown


def test_what_cannot_be_decoded_is_said(client: ResultClient, browser: Client) -> None:
    strange, damaged = new_id(), new_id()
    client.store(success(strange, 1)._replace(outcome=Payload("pickle", b"cos\nsystem\n.")))
    client.store(success(damaged, 1))
    Result.objects.filter(task_id=damaged).update(body=b"no record")

    assert "It cannot be read here" in page(browser, page_of(strange))
    assert "It cannot be read here" in page(browser, page_of(damaged))


@pytest.mark.parametrize("task_id", ["a/b?c#d", "_3A", "a b%20c", "ünïcode ☃", "'\"<&>"])
def test_any_id_has_a_page(task_id: str, client: ResultClient, browser: Client) -> None:
    client.store(success(task_id, "here it is"))

    link = page(browser, LIST).partition('<th class="field-task_id"><a href="')[2].partition('"')[0]
    shown = page(browser, unescape(link))

    assert "here it is" in shown
    assert task_id in unescape(shown)


def test_other_namespaces_and_what_has_expired_are_not_shown(
    client: ResultClient, browser: Client
) -> None:
    task_id, gone = new_id(), new_id()
    client.store(success(task_id, 1))
    client.store(success(gone, 1))
    row = Result.objects.get(task_id=gone)
    Result.objects.filter(task_id=gone).update(expires_at=row.stored_at - 1)
    row.key, row.task_id, row.expires_at = f"{NAMESPACE.upper()}:other", "another's", None
    row.save(force_insert=True)

    shown = page(browser, LIST)

    assert task_id in shown
    assert gone not in shown
    assert "another" not in shown


def test_nothing_can_be_added_changed_or_deleted(client: ResultClient) -> None:
    browser = login("view_result", "add_result", "change_result", "delete_result")
    task_id = new_id()
    client.store(success(task_id, 1))

    shown = page(browser, page_of(task_id))

    assert 'type="submit" value="Save"' not in shown
    assert "deletelink" not in shown
    assert browser.get(f"{LIST}add/").status_code == 403
    assert browser.post(page_of(task_id), {"name": "x"}).status_code == 403
    assert browser.post(page_of(task_id).replace("change", "delete")).status_code == 403
    User.objects.all().delete()


def test_the_selected_results_are_forgotten(client: ResultClient) -> None:
    browser = login("view_result", "delete_result")
    kept, gone = new_id(), new_id()
    client.store_many([success(kept, 1), success(gone, 1)])

    answer = browser.post(
        LIST, {"action": "forget", "_selected_action": f"{NAMESPACE}:{gone}"}, follow=True
    )

    assert "1 result was forgotten." in answer.content.decode()
    assert client.load(gone) is None
    assert client.load(kept) is not None
    User.objects.all().delete()


def test_who_may_only_look_cannot_have_results_forgotten(
    client: ResultClient, browser: Client
) -> None:
    task_id = new_id()
    client.store(success(task_id, 1))

    browser.post(LIST, {"action": "forget", "_selected_action": f"{NAMESPACE}:{task_id}"})

    assert client.load(task_id) is not None
    assert "Forget the selected" not in page(browser, LIST)


def test_the_page_says_why_a_task_cannot_be_sent_again(
    client: ResultClient, browser: Client
) -> None:
    task_id = new_id()
    client.store(success(task_id, 1))

    assert "does not hold the task" in page(browser, page_of(task_id))


def test_what_unfolds_to_more_than_a_page_is_not_decoded(
    client: ResultClient, browser: Client
) -> None:
    """A gigabyte of zeros is a megabyte of gzip; whoever may store a record may store that."""
    task_id, reporting = new_id(), new_id()
    bomb = Payload(compressed_as("json", "gzip"), gzip.compress(b" " * 2**26))
    client.store(success(task_id, 1)._replace(outcome=bomb))
    client.store(success(reporting, "small")._replace(info=bomb))

    shown, beside = page(browser, page_of(task_id)), page(browser, page_of(reporting))

    assert "too much for a page; upshot results show prints it" in shown
    assert "too much for a page" in beside
    assert "small" in beside


def test_a_failure_tells_no_password(client: ResultClient, browser: Client) -> None:
    task_id = new_id()
    client.store(failure(task_id, ConnectionError("redis://me:notToBeShown@host/0 is away")))

    shown = page(browser, page_of(task_id))

    assert "is away" in shown
    assert "notToBeShown" not in shown


def test_marks_that_turn_text_are_spelt_out(client: ResultClient, browser: Client) -> None:
    task_id = new_id()
    client.store(success(task_id, "user\u202egnp.exe"))

    assert r"\u202e" in page(browser, page_of(task_id))
