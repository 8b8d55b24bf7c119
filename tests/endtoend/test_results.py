"""`upshot results` on the services that it is for: what it finds, shows and refuses."""

from __future__ import annotations

import uuid
from pathlib import Path

import pytest

from upshot.archive import to_line
from upshot.record import Payload, Record
from upshot_conformance.records import streamed, success

from .places import Command, Place, json_of, opened
from .services import SERVICES

# -- every command on every kind of service ---------------------------------------------------


def test_every_command_does_its_work(here: Command, served: Place, tmp_path: Path) -> None:
    served.fill()

    listed = json_of(here("list", *served.words, "--json"))
    assert [each["id"] for each in listed["records"]] == ["good", "runs", "bad", "old", "gone"]
    assert "shop.order" in here("list", *served.words, "--name", "shop.*").stdout
    assert json_of(here("show", "good", *served.words, "--json"))["value"] == {"total": 12}
    assert json_of(here("stats", *served.words, "--json"))["states"]["SUCCESS"] == 2
    assert here("wait", "good", "old", *served.words, "-t", "5s").returncode == 0
    watched = here("watch", "good", "runs", *served.words, "-t", "0.2s")
    assert (watched.returncode, "75%  3/4" in watched.stdout) == (124, True)

    exported = here("export", *served.words)
    assert len(exported.stdout.splitlines()) == 5
    copy = f"sqlite:///{tmp_path}/copy.db"
    migrated = here("migrate", served.url, copy, "--namespace", served.namespace, "--json")
    assert (migrated.returncode, json_of(migrated)["verified"]) == (0, 5)

    pruned = json_of(here("prune", *served.words, "--older-than", "7d", "--json"))
    assert (pruned["removed"], served.ids()) == (1, {"good", "bad", "runs", "gone"})
    assert here("forget", "bad", *served.words).returncode == 0
    assert served.ids() == {"good", "runs", "gone"}
    (tmp_path / "all.ndjson").write_text(exported.stdout)
    back = json_of(here("import", *served.words, "--json", f"{tmp_path}/all.ndjson"))
    assert back == {"stored": 2, "present": 3, "kept": 0, "refused": 0}
    again = here("export", *served.words)
    assert sorted(again.stdout.splitlines()) == sorted(exported.stdout.splitlines())


def test_what_memcached_cannot_do_is_refused_and_the_rest_is_done(
    here: Command, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    (memcached,) = (service for service in SERVICES if service.name == "memcached")
    for place in opened(memcached.find(request, Path())):
        place.client.store(success("it", 42))

        for command in ("list", "stats", "export", "prune --state SUCCESS", "watch"):
            refused = here(*command.split(), *place.words)
            assert (refused.returncode, refused.stderr.count("\n")) == (1, 1)
            assert "cannot enumerate its records" in refused.stderr
        line = to_line(success("other", 7))
        (tmp_path / "one").write_text(line)
        assert here("import", *place.words, f"{tmp_path}/one").returncode == 0
        assert here("wait", "it", "other", *place.words).returncode == 0
        assert here("forget", "it", *place.words).returncode == 0
        assert place.client.load("it") is None


@pytest.mark.parametrize("command", ["list", "show it", "wait it", "forget it", "import"])
@pytest.mark.parametrize("url", ["memory://x", "rpc://guest:s3cr3t@127.0.0.1:1//"])
def test_results_of_one_process_are_refused_at_once(here: Command, command: str, url: str) -> None:
    done = here(*command.split(), "--url", url)

    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "only to the process" in done.stderr
    assert "s3cr3t" not in done.stderr


def test_a_stream_shows_how_many_items_it_had(here: Command, place: Place) -> None:
    place.client.store(streamed(success("lines", None), 3))
    place.client.store(success("plain", 7))

    assert "items        3\n" in here("show", "lines", *place.words).stdout
    listed = {each["id"]: each for each in json_of(here("list", *place.words, "--json"))["records"]}
    assert {each: found["items"] for each, found in listed.items()} == {"lines": 3, "plain": None}
    assert "3 items" in here("list", *place.words).stdout


# -- where the results are --------------------------------------------------------------------


def test_no_place_at_all_says_how_to_give_one(here: Command, tmp_path: Path) -> None:
    done = here("list")

    assert done.returncode == 2
    for word in ("-A", "UPSHOT_APP", "--url"):
        assert word in done.stderr
    assert [*tmp_path.iterdir()] == []


def test_an_app_the_environment_and_a_url_are_places(
    results: Command, place: Place, tmp_path: Path
) -> None:
    (tmp_path / "jobs.py").write_text("from upshot import App\napp = App('jobs')\n")
    place.fill()
    settings = {"UPSHOT_RESULT_BACKEND": place.url, "UPSHOT_NAMESPACE": place.namespace}

    by_app = results("list", "-A", "jobs", "--ids", **settings)
    by_environment = results("list", "--ids", **settings)
    url_wins = results("list", *place.words, "--ids", UPSHOT_APP="no_such_module")

    assert by_app.stdout == by_environment.stdout == url_wins.stdout
    assert by_app.stdout.splitlines()[0] == "good"


@pytest.mark.parametrize(
    "line",
    [
        "list -A jobs --url redis://:s3cr3t@h",
        "list --url redis://:s3cr3t@h:x",
        "list --url nosuch://:s3cr3t@h",
        "list --namespace x --url redis://:s3cr3t@h --since redis://:s3cr3t@h",
        "list --url redis://:s3cr3t@h --state PENDING,redis://:s3cr3t@h",
        "list --limit redis://:s3cr3t@h",
        "prune --url redis://:s3cr3t@h --older-than redis://:s3cr3t@h",
        "prune --url redis://:s3cr3t@h --dry-run",
        "import --url redis://:s3cr3t@h --expires redis://:s3cr3t@h",
        "import --url redis://:s3cr3t@h redis://:s3cr3t@h",
        "import --url redis://:s3cr3t@h --expires 0",
        "migrate redis://:s3cr3t@h redis://:s3cr3t@h",
        "migrate redis://:s3cr3t@h nosuch://:s3cr3t@h",
        "redis://:s3cr3t@h",
        "wait",
        "list --page 300 --limit 100 --url sqlite:///x.db",
    ],
)
def test_a_slip_is_usage_without_a_password(here: Command, line: str) -> None:
    done = here(*line.split())

    assert done.returncode == 2
    assert "Error: " in done.stderr
    assert "s3cr3t" not in done.stdout + done.stderr


def test_an_id_that_looks_like_a_url_is_echoed_without_its_password(
    here: Command, place: Place
) -> None:
    url = "redis://:s3cr3t@h"
    shown, as_json, forgotten, waited, watched = (
        here(*command.split(), url, *place.words)
        for command in ("show", "show --json", "forget --json", "wait -t 0", "watch -t 0")
    )

    for done in (shown, as_json, forgotten, waited, watched):
        assert "redis://:***@h" in done.stdout + done.stderr
        assert "s3cr3t" not in done.stdout + done.stderr


# -- looking ----------------------------------------------------------------------------------


def test_a_page_says_how_many_there_are(here: Command, place: Place) -> None:
    place.fill()

    first = json_of(here("list", *place.words, "--limit", "2", "--json"))
    last = here("list", *place.words, "--limit", "2", "--page", "3")
    none = here("list", *place.words, "--name", "nothing")

    assert (first["matched"], first["pages"], first["page"]) == (5, 3, 1)
    assert "gone" in last.stdout
    assert "page 3 of 3; 5 records in all" in last.stderr
    assert (none.returncode, none.stdout) == (0, "")
    assert "no such records" in none.stderr


@pytest.mark.parametrize(
    ("options", "found"),
    [
        ("--state success,FAILURE", "good bad old"),
        ("--state failure --state revoked", "bad gone"),
        ("--queues low,high", "good bad"),
        ("--since 2h", "good runs bad"),
        ("--until 2h", "old gone"),
        ("--since 10d --until 2h --name news.*", "old"),
        ("--unfinished", "runs"),
    ],
)
def test_a_list_can_be_narrowed(here: Command, place: Place, options: str, found: str) -> None:
    place.fill()

    assert here("list", *place.words, "--ids", *options.split()).stdout.split() == found.split()


def test_a_misspelt_state_is_pointed_out(here: Command, place: Place) -> None:
    done = here("list", *place.words, "--state", "sucess")

    assert "did you mean SUCCESS?" in done.stderr


def hostile() -> list[Record]:
    """Records whose every text tries something, and whose payloads are not what they say."""
    text = "[bold]\x1b[31m\x9b2J\u202e\x7f"
    evil = success("it [red]\u202e", text)._replace(name=text, queue=text, worker=text)
    return [
        evil,
        evil._replace(task_id="pickled", outcome=Payload("pickle", b"cos\nsystem\n")),
        evil._replace(task_id="rubbish", outcome=Payload("json", b"\xff{")),
        evil._replace(task_id="no failure", state="FAILURE", outcome=Payload("json", b"[]")),
        evil._replace(task_id="info", info=Payload("x\x1b[2J", b"")),
        Record("state", state="X\x1b[2J", name=text),
    ]


def test_hostile_records_are_shown_and_none_hides_the_others(here: Command, place: Place) -> None:
    place.client.store_many(hostile())
    bad = place.client.encode(success("corrupt", 1))._replace(body=b"u2rubbish")
    place.client.store_encoded([bad])

    wide, narrow = here("list", *place.words), here("list", *place.words, COLUMNS="40")
    as_json = here("list", *place.words, "--json")
    shown = [here("show", each.task_id, *place.words) for each in hostile()[1:4]]
    watched = here("watch", "state", "it [red]\u202e", *place.words, "-t", "0")

    for done in (wide, narrow, as_json, watched, *shown):
        printed = done.stdout + done.stderr
        assert all(letter.isprintable() for line in printed.split("\n") for letter in line)
    assert wide.stdout.count("cannot be shown: ") == 4
    assert "1 more cannot be read" in wide.stderr
    found = json_of(as_json)
    assert (len(found["records"]), found["unreadable"]) == (6, 1)
    assert sum(each["unreadable"] is not None for each in found["records"]) == 4
    assert [done.returncode for done in shown] == [1, 1, 1]


def test_an_id_that_is_listed_for_a_program_is_the_one_that_there_is(
    here: Command, place: Place
) -> None:
    hostile_ids = ["it \u202e", "\\u202e", "a\u00a0b", "-x", "é"]
    place.client.store_many([success(each, 1) for each in hostile_ids])

    listed = here("list", "--ids", *place.words, PYTHONIOENCODING="utf-8").stdout.splitlines()
    forgotten = here("forget", *place.words, "--", *listed)

    assert sorted(listed) == sorted(hostile_ids)
    assert forgotten.returncode == 0, forgotten.stderr
    assert place.ids() == set()


def test_a_terminal_of_40_columns_folds_no_id(here: Command, place: Place) -> None:
    task_id = str(uuid.uuid4())
    place.client.store(success(task_id, "x" * 100)._replace(name="shop.order", started_at=1.0))

    lines = here("list", *place.words, COLUMNS="40").stdout.splitlines()

    assert f"  {task_id}" in lines
    assert lines[-1] == f'  "{"x" * 36}…'
    assert max(map(len, lines)) <= 40


def test_programs_see_times_in_utc_and_null_for_what_is_unknown(
    here: Command, place: Place
) -> None:
    place.client.store(success("it", 1)._replace(started_at=0.0, finished_at=1.5))

    (found,) = json_of(here("list", *place.words, "--json"))["records"]

    assert found["changed_at"] == found["finished_at"] == "1970-01-01T00:00:01.500000+00:00"
    assert (found["took"], found["queued_at"], found["name"]) == (1.5, None, None)


def test_statistics_of_nothing(here: Command, place: Place) -> None:
    as_json, shown = here("stats", *place.words, "--json"), here("stats", *place.words)

    assert json_of(as_json) == {
        "count": 0,
        "unreadable": 0,
        "bytes": 0,
        "largest": 0,
        "states": {},
        "oldest": None,
        "newest": None,
        "expiring": 0,
        "within": 3600.0,
    }
    assert shown.returncode == 0
