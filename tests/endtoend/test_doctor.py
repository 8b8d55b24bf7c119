"""`upshot doctor` on real services: what it finds, what it says, and that it leaves nothing."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg
import pymongo
import pytest

from upshot.diagnosis import Examination, examine, roles_of
from upshot.finding import Finding, Level
from upshot.url import Url
from upshot_conformance.servers import (
    MemcachedServer,
    MongoDBServer,
    PostgreSQLServer,
    RabbitMQServer,
    RedisServer,
)

from .here import CommandHere

JOBS = """
    from upshot import App

    app = App("jobs")


    @app.task
    def add(x, y):
        return x + y


    @app.task(queue="slow")
    def nap():
        return None
"""


@pytest.fixture
def upshot(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> CommandHere:
    """Runs `upshot` in a folder that has `jobs.py`."""
    (tmp_path / "jobs.py").write_text(textwrap.dedent(JOBS))
    return CommandHere(tmp_path, {}, capsys)


def look(url: str) -> Examination:
    """Examine a service in all its roles."""
    parsed = Url.parse(url)
    found = examine(parsed, roles=roles_of(parsed), namespace="upshot", timeout=5.0)
    for finding in found.findings:  # where passwords are looked for
        print(finding.level, finding.what, finding.why, finding.change, sep=" | ")
    return found


def one(found: Examination, words: str) -> Finding:
    """Return the one finding that has these words in `what`."""
    fits = [finding for finding in found.findings if words in finding.what]
    assert len(fits) == 1, [finding.what for finding in found.findings]
    return fits[0]


def problems(found: Examination) -> list[Finding]:
    return [finding for finding in found.findings if finding.level == Level.PROBLEM]


# -- SQLite, and the command itself ----------------------------------------------------------------


def test_a_file_that_is_not_there_is_not_made(upshot: CommandHere, tmp_path: Path) -> None:
    before = sorted(tmp_path.rglob("*"))
    done = upshot("doctor", f"sqlite:///{tmp_path}/folder/queue.db")

    assert done.returncode == 0
    assert "SQLite 3." in done.stdout
    assert "upshot was not used here before" in done.stdout
    assert "records can be deleted" in done.stdout
    assert "messages with an eta come at their moment" in done.stdout
    assert "it wakes nobody" in done.stdout
    assert sorted(set(tmp_path.rglob("*")) - {tmp_path / "__pycache__"}) == before


def test_a_file_that_is_there_is_left_as_it_was(upshot: CommandHere, tmp_path: Path) -> None:
    queue = {"UPSHOT_BROKER_URL": f"sqlite:///{tmp_path}/queue.db"}
    sent = upshot("-A", "jobs", "call", "add", "1", "2", **queue)
    done = upshot("doctor", queue["UPSHOT_BROKER_URL"], "--json")

    assert sent.returncode == done.returncode == 0
    assert "not used here before" not in done.stdout
    purged = upshot("-A", "jobs", "purge", "-y", "--json", **queue)
    assert json.loads(purged.stdout)["queues"] == {"default": 1, "slow": 0}
    with closing(sqlite3.connect(tmp_path / "queue.db")) as database:
        assert database.execute("SELECT count(*) FROM upshot_results").fetchall() == [(1,)]
        assert database.execute("SELECT count(*) FROM upshot_workers").fetchall() == [(0,)]


def test_json_has_every_finding_with_its_level(upshot: CommandHere, tmp_path: Path) -> None:
    done = upshot("doctor", f"sqlite:///{tmp_path}/queue.db", "--json")

    found = json.loads(done.stdout)
    (examination,) = found["examinations"]
    assert (found["worst"], examination["worst"]) == ("note", "note")
    assert examination["roles"] == ["result backend", "broker"]
    assert {"level", "what", "why", "change", "capability"} == examination["findings"][0].keys()
    assert examination["will"]
    assert examination["will_not"]


def test_a_folder_that_cannot_be_made_is_a_problem(upshot: CommandHere, tmp_path: Path) -> None:
    done = upshot("doctor", f"sqlite:///{tmp_path}/no/such/queue.db")

    assert done.returncode == 1
    assert "there is no folder" in done.stdout


def test_a_file_that_is_no_database_is_a_problem(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("hello\n" * 1000)
    found = look(f"sqlite:///{tmp_path}/text")

    assert "not a database" in problems(found)[0].what
    assert "name another file" in problems(found)[0].change
    assert (tmp_path / "text").read_text() == "hello\n" * 1000


def test_without_a_url_and_an_app_the_usage_is_wrong(upshot: CommandHere) -> None:
    done = upshot("doctor")

    assert done.returncode == 2
    assert "Give a URL, or -A" in done.stderr


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("redsi://h", "did you mean"),
        ("redis://h/x", "database number"),
        ("rpc://", "give the broker's URL"),
        ("sqlite:///x.db?upshot_tabel_prefix=x", "did you mean"),
    ],
)
def test_a_url_that_cannot_be_used_is_wrong_usage(
    upshot: CommandHere, url: str, words: str
) -> None:
    done = upshot("doctor", url)

    assert done.returncode == 2
    assert words in done.stderr


@pytest.mark.parametrize("kind", ["redis", "mongodb", "memcached", "postgresql", "mariadb", "amqp"])
def test_where_nobody_listens_is_one_clear_sentence(kind: str) -> None:
    path = "/database" if kind in ("postgresql", "mariadb") else ""
    found = look(f"{kind}://127.0.0.1:1{path}")

    assert found.worst == Level.PROBLEM
    assert [finding.what for finding in found.findings] == [
        "it cannot be used: nothing listens at 127.0.0.1:1"
    ]
    assert "start the service" in found.findings[0].change


@pytest.mark.parametrize("kind", ["redis", "memcached", "postgresql", "mariadb", "amqp"])
def test_a_host_that_nobody_knows_is_one_clear_sentence(kind: str) -> None:
    path = "/database" if kind in ("postgresql", "mariadb") else ""
    found = look(f"{kind}://nowhere.invalid{path}")

    assert [finding.what for finding in found.findings] == [
        "it cannot be used: the host name in nowhere.invalid cannot be resolved"
    ]


# -- Redis -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def evicting_redis() -> Iterator[RedisServer]:
    """A cache: what it keeps may be thrown away; on disk, though."""
    arguments = ["--maxmemory", "50mb", "--maxmemory-policy", "allkeys-lru"]
    with RedisServer(persistent=True, arguments=arguments) as server:
        yield server


def as_user(server: RedisServer, *rules: str) -> str:
    """Make a user with these rights, and return the URL for it."""
    name = f"user{os.urandom(4).hex()}"
    server.ask("ACL", "SETUSER", name, "on", ">pw", *rules)
    return f"redis://{name}:pw@127.0.0.1:{server.port}/0"


def test_a_redis_is_fine_but_for_what_a_restart_loses(redis_server: RedisServer) -> None:
    before = redis_server.ask("KEYS", "upshot*")
    found = look(redis_server.url)

    assert problems(found) == []
    assert found.findings[0].what.startswith("Redis ")
    assert one(found, "woken").level == Level.OK
    assert one(found, "a restart loses").level == Level.WARNING
    assert one(found, "its clock agrees").level == Level.OK
    assert not any("survive" in sentence for sentence in found.will)
    assert redis_server.ask("KEYS", "upshot*") == before


def test_a_redis_that_evicts_is_warned_of(upshot: CommandHere, evicting_redis: RedisServer) -> None:
    done = upshot("doctor", evicting_redis.url)
    strict = upshot("doctor", evicting_redis.url, "--strict")

    assert (done.returncode, strict.returncode) == (0, 1)
    assert "warning  it may throw away what upshot keeps: maxmemory-policy allkeys-lru" in (
        done.stdout
    )
    assert "whole queues" in done.stdout
    assert "Change: CONFIG SET maxmemory-policy noeviction" in done.stdout
    assert "ok       results and messages survive a restart (appendonly yes)" in done.stdout
    assert evicting_redis.ask("KEYS", "*") == ""


def test_a_user_with_just_the_rights_that_are_advised_can_do_all(
    evicting_redis: RedisServer,
) -> None:
    lacking = look(as_user(evicting_redis, "~upshot*", "&upshot*", "+@connection"))
    advised = lacking.findings[-1].change.partition("ACL SETUSER USER ")[2]
    rules = advised.replace("NAMESPACE", "upshot").split()
    found = look(as_user(evicting_redis, *rules))

    assert problems(lacking)
    assert problems(found) == []
    assert one(found, "this user may not run INFO").level == Level.NOTE
    assert one(found, "woken").level == Level.OK


def test_a_user_who_may_not_publish_is_told_how_to_let_it(evicting_redis: RedisServer) -> None:
    found = look(as_user(evicting_redis, "~*", "+@all"))

    (problem,) = problems(found)
    assert problem.what.startswith("notifications cannot be had: ")
    assert "&NAMESPACE*" in problem.change
    assert one(found, "what else works was not tried").level == Level.NOTE
    assert not any("woken" in sentence for sentence in found.will)


def test_a_user_who_may_not_write_is_told_how_to_let_it(evicting_redis: RedisServer) -> None:
    found = look(as_user(evicting_redis, "~*", "&*", "+@read", "+@connection", "+info"))

    assert [problem.what.partition(":")[0] for problem in problems(found)] == [
        "a record cannot be written",
        "it cannot be asked what is in a queue",
    ]
    assert "+@write" in problems(found)[0].change
    assert evicting_redis.ask("KEYS", "*") == ""


def test_a_redis_that_is_full_is_told_what_to_change() -> None:
    with RedisServer() as server:
        server.ask("CONFIG", "SET", "maxmemory", "1")
        found = look(server.url)

    stored, sent = problems(found)
    assert stored.what.startswith("a record cannot be written: ")
    assert sent.what.startswith("a message cannot be published: ")
    assert "give it more memory" in stored.change
    assert "give it more memory" in sent.change


def test_a_replica_that_takes_no_writes_is_not_tried(evicting_redis: RedisServer) -> None:
    arguments = ["--replicaof", "127.0.0.1", str(evicting_redis.port)]
    with RedisServer(arguments=arguments) as replica:
        found = look(replica.url)

    (problem,) = problems(found)
    assert problem.what == (
        f"it is a replica of 127.0.0.1:{evicting_redis.port}, and takes no writes"
    )
    assert "redis+sentinel://" in problem.change
    assert one(found, "not tried").level == Level.NOTE


@pytest.mark.parametrize("login", ["", ":s3cr3t@"])
def test_a_wrong_password_is_one_clear_sentence(
    upshot: CommandHere, redis_server: RedisServer, login: str
) -> None:
    done = upshot("doctor", f"redis://{login}127.0.0.1:{redis_server.port}")

    assert done.returncode == 1
    assert "user or password are refused" in done.stdout
    assert "correct user and password in the URL" in done.stdout
    assert "s3cr3t" not in done.stdout + done.stderr


def test_tls_where_there_is_none_and_none_where_there_is(evicting_redis: RedisServer) -> None:
    with RedisServer(tls=True) as server:
        plain = look(f"redis://127.0.0.1:{server.port}")
        unknown = look(f"rediss://127.0.0.1:{server.port}")
        fine = look(server.url)

    assert "not as redis:// should" in problems(plain)[0].what
    assert "rediss://" in problems(plain)[0].change
    assert "the certificate of" in problems(unknown)[0].what
    assert problems(fine) == []


def test_ctrl_c_leaves_nothing_behind(evicting_redis: RedisServer, tmp_path: Path) -> None:
    process = subprocess.Popen(
        [
            "env",
            "--default-signal=INT",
            sys.executable,
            "-m",
            "upshot",
            "doctor",
            evicting_redis.url,
        ],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    while process.poll() is None and "upshot-doctor-" not in evicting_redis.ask("KEYS", "*"):
        continue
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=30)

    assert process.returncode == 130
    assert "Traceback" not in errors
    assert evicting_redis.ask("KEYS", "*") == ""


# -- the others ------------------------------------------------------------------------------------


def test_a_standalone_mongodb_wakes_nobody(mongodb_standalone_server: MongoDBServer) -> None:
    url = f"{mongodb_standalone_server.url}doctor"
    found = look(url)

    assert problems(found) == []
    assert "a standalone server" in found.findings[0].what
    warning = one(found, "it wakes nobody who waits")
    assert (warning.level, warning.capability) == (Level.WARNING, "push")
    assert "--replSet" in warning.change
    assert not any("wake" in sentence for sentence in found.will + found.will_not)
    with pymongo.MongoClient[dict[str, Any]](url) as client:
        assert "doctor" not in client.list_database_names()


def test_a_replica_set_wakes_who_waits(mongodb_server: MongoDBServer) -> None:
    found = look(mongodb_server.url.replace("/?", "/doctor?"))

    assert problems(found) == []
    assert "the replica set 'upshot' of 1 member" in found.findings[0].what
    assert one(found, "woken").level == Level.OK
    with pymongo.MongoClient[dict[str, Any]](mongodb_server.url) as client:
        assert "doctor" not in client.list_database_names()


def test_memcached_forgets_and_cannot_list(memcached_server: MemcachedServer) -> None:
    found = look(memcached_server.url)

    assert problems(found) == []
    assert found.findings[0].what.startswith("memcached 1.")
    assert one(found, "throws away results").level == Level.NOTE
    assert any("cannot be listed" in sentence for sentence in found.will_not)


def test_memcached_with_small_items_is_a_problem() -> None:
    with MemcachedServer(arguments=["-I", "512k"]) as server:
        found = look(server.url)

    assert "takes items of 524288 bytes only" in problems(found)[0].what
    assert "-I 1m" in problems(found)[0].change


@pytest.fixture
def postgresql(
    postgresql_server: PostgreSQLServer,
) -> Iterator[tuple[psycopg.Connection[Any], str]]:
    """A database of the test's own with a role that may only log in; the URL is for that role."""
    name = f"few{os.urandom(4).hex()}"
    with psycopg.connect(postgresql_server.url, autocommit=True) as server:
        server.execute(f"CREATE ROLE {name} LOGIN PASSWORD 'pw'".encode())
        server.execute(f"CREATE DATABASE {name}".encode())
        own = postgresql_server.url.replace("/postgres", f"/{name}")
        with psycopg.connect(own, autocommit=True) as connection:
            yield connection, f"postgresql://{name}:pw@127.0.0.1:{postgresql_server.port}/{name}"
        server.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())
        server.execute(f"DROP ROLE {name}".encode())


def tables(connection: psycopg.Connection[Any]) -> list[str]:
    found = connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
    return sorted(name for (name,) in found.fetchall())


def test_a_postgresql_user_who_may_not_create_tables(
    postgresql: tuple[psycopg.Connection[Any], str],
) -> None:
    connection, url = postgresql
    found = look(url)

    assert found.findings[0].what.startswith("PostgreSQL ")
    assert "permission denied for schema public" in problems(found)[0].what
    assert "upshot backends ddl URL" in problems(found)[0].change
    assert "GRANT CREATE ON SCHEMA public" in problems(found)[0].change
    assert tables(connection) == []


def test_a_postgresql_user_who_may_create_tables_keeps_none(
    postgresql: tuple[psycopg.Connection[Any], str],
) -> None:
    connection, url = postgresql
    connection.execute("GRANT CREATE ON SCHEMA public TO PUBLIC")
    found = look(url)

    assert problems(found) == []
    assert one(found, "not used here before").level == Level.NOTE
    assert one(found, "woken").level == Level.OK
    assert tables(connection) == []


def test_a_postgresql_user_who_may_only_read(
    upshot: CommandHere, postgresql: tuple[psycopg.Connection[Any], str], postgresql_server: object
) -> None:
    connection, url = postgresql
    assert isinstance(postgresql_server, PostgreSQLServer)
    own = postgresql_server.url.replace("/postgres", f"/{connection.info.dbname}")
    for statement in upshot("backends", "ddl", own).stdout.split(";\n"):
        if statement.strip():
            connection.execute(statement.encode())
    connection.execute("GRANT SELECT ON ALL TABLES IN SCHEMA public TO PUBLIC")
    found = look(url)

    assert "permission denied for table upshot_results" in problems(found)[0].what
    assert problems(found)[0].change.startswith("GRANT SELECT, INSERT, UPDATE, DELETE")
    assert connection.execute("SELECT count(*) FROM upshot_messages").fetchall() == [(0,)]


def test_a_database_that_is_not_there_and_tls_that_is_not_spoken(
    postgresql_server: PostgreSQLServer,
) -> None:
    missing = look(postgresql_server.url.replace("/postgres", "/nowhere"))
    tls = look(f"{postgresql_server.url}?sslmode=require")

    assert 'database "nowhere" does not exist' in problems(missing)[0].what
    assert "CREATE DATABASE" in problems(missing)[0].change
    assert problems(tls)[0].what.endswith("does not speak TLS")


def test_rabbitmq_is_broker_and_result_backend_and_keeps_no_queue(
    rabbitmq_server: RabbitMQServer,
) -> None:
    before = rabbitmq_server.control("list_queues", "name")
    found = look(rabbitmq_server.url)

    assert problems(found) == []
    assert found.roles == ("result backend", "broker")
    assert found.findings[0].what.startswith("RabbitMQ 3.")
    assert any("only the process that sent a task" in each for each in found.will_not)
    assert any("30 minutes" in each for each in found.will_not)
    assert rabbitmq_server.control("list_queues", "name") == before


def test_a_rabbitmq_user_without_rights_is_told_which(rabbitmq_server: RabbitMQServer) -> None:
    rabbitmq_server.control("add_user", "few", "pw")
    try:
        rabbitmq_server.control("set_permissions", "-p", "/", "few", "^none$", ".*", ".*")
        found = look(f"amqp://few:pw@127.0.0.1:{rabbitmq_server.port}//")
    finally:
        rabbitmq_server.control("delete_user", "few")

    assert [problem.what.partition(":")[0] for problem in problems(found)] == [
        "a record cannot be written",
        "a message cannot be published",
    ]
    assert "set_permissions" in problems(found)[0].change


# -- apps ------------------------------------------------------------------------------------------


def test_a_whole_app_is_examined(upshot: CommandHere, redis_server: RedisServer) -> None:
    own = {
        "UPSHOT_BROKER_URL": redis_server.url,
        "UPSHOT_NAMESPACE": f"doctor{os.urandom(4).hex()}",
        "UPSHOT_ACCEPT_CONTENT": "json,pickle",
    }
    upshot("-A", "jobs", "call", "add", "1", "2", **own)
    done = upshot("doctor", "--json", UPSHOT_APP="jobs", **own)

    found = {each["subject"]: each for each in json.loads(done.stdout)["examinations"]}
    assert done.returncode == 0
    assert next(iter(found)) == "app jobs"
    levels = {each["what"]: each["level"] for each in found["app jobs"]["findings"]}
    assert levels["2 tasks, for the queues default, slow"] == "ok"
    assert levels["accept_content has 'pickle'"] == "warning"
    queues = {each["what"]: each for each in found["queues and workers"]["findings"]}
    assert queues["no worker gives a sign of life"]["level"] == "warning"
    waiting = queues["queue default: 1 message waits, and no worker serves it"]
    assert waiting["change"] == "start one: upshot -A jobs worker -Q default"
    assert queues["queue slow: empty, and no worker serves it"]["level"] == "note"


def test_an_app_whose_broker_is_away_is_a_problem_and_nothing_more(upshot: CommandHere) -> None:
    done = upshot("-A", "jobs", "doctor", UPSHOT_BROKER_URL="redis://127.0.0.1:1")

    assert done.returncode == 1
    assert "nothing listens at 127.0.0.1:1" in done.stdout
    assert "queues and workers" not in done.stdout


def test_an_app_that_was_never_used_is_left_alone(upshot: CommandHere, tmp_path: Path) -> None:
    done = upshot("-A", "jobs", "doctor")

    assert done.returncode == 0
    assert "a file below the current folder" in done.stdout
    assert not (tmp_path / ".upshot").exists()
