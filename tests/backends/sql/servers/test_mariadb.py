"""What is MariaDB's and MySQL's own: packets, row counts, snapshots, modes."""

from __future__ import annotations

import contextlib
import ssl
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from upshot.backend import StoredRecord
from upshot.broker import QueuedMessage
from upshot.errors import PayloadTooLargeError, ServiceRejectedError, UrlError
from upshot.url import Url
from upshot_backends.sql.mysql.broker import MysqlBroker
from upshot_backends.sql.mysql.driver import connect, parameters
from upshot_backends.sql.mysql.results import MysqlBackend
from upshot_conformance.servers import MariaDBServer

RecordMaker = Callable[..., StoredRecord]
BackendOpener = Callable[..., MysqlBackend]
Run = Callable[..., list[tuple[object, ...]]]


@pytest.fixture
def service() -> str:
    """The only service that these tests are for."""
    return "mariadb"


@pytest.fixture(scope="module")
def odd() -> Iterator[MariaDBServer]:
    """A server whose settings are all but the defaults."""
    settings = [
        "--max-allowed-packet=1M",
        "--sql-mode=ANSI_QUOTES,PIPES_AS_CONCAT,NO_BACKSLASH_ESCAPES,SIMULTANEOUS_ASSIGNMENT",
        "--transaction-isolation=SERIALIZABLE",
        "--autocommit=0",
        "--character-set-server=latin1",
        "--collation-server=latin1_german1_ci",
    ]
    with MariaDBServer(arguments=settings) as server:
        yield server


def test_a_server_of_small_packets_narrows_what_is_declared(
    odd: MariaDBServer, open_backend: BackendOpener, record: RecordMaker
) -> None:
    backend = open_backend(odd.url)
    declared = backend.capabilities.max_record_bytes
    backend.load(["a"], 30.0)
    narrowed = backend.capabilities.max_record_bytes

    assert MysqlBackend.capabilities.max_record_bytes == declared
    assert 2**19 < narrowed < 2**20
    assert backend.store([record("a", bytes(narrowed))], 30.0) == [True]
    assert backend.load(["a"], 30.0) == [bytes(narrowed)]
    with pytest.raises(PayloadTooLargeError, match="max_allowed_packet"):
        backend.store([record("b", bytes(2**20))], 30.0)


def test_batches_are_cut_to_fit_small_packets(
    odd: MariaDBServer, open_backend: BackendOpener, record: RecordMaker
) -> None:
    backend, broker = open_backend(odd.url), MysqlBroker(Url.parse(odd.url), "ns")
    bodies = [bytes([number]) * 100_000 for number in range(20)]
    batch = [record(f"{number}", body) for number, body in enumerate(bodies)]
    messages = [
        QueuedMessage(message_id=f"{number}", queue="q", body=body)
        for number, body in enumerate(bodies)
    ]

    assert backend.store(batch, 30.0) == [True] * 20
    assert backend.load([each.key for each in batch], 30.0) == bodies
    broker.publish(messages, (), 30.0)
    found = broker.fetch(["q"], limit=20, wait=0.0, lease=60.0, worker="w")
    assert [delivery.body for delivery in found] == bodies
    broker.close()


def test_no_mode_of_the_server_changes_what_is_stored_and_answered(
    odd: MariaDBServer, open_backend: BackendOpener, record: RecordMaker
) -> None:
    backend, other = open_backend(odd.url), open_backend(odd.url)
    for key in ("mode \\", "mode '", 'mode "', "mode ||", "mode é", "mode \U0001f600"):
        assert backend.load([key], 30.0) == [None]
        answers = [
            list(other.store([record(key, body, rank=rank, barrier=rank)], 30.0))
            for body, rank in ((b"first", 20), (b"late", 10), (b"last \\'\"\0\xff", 30))
        ]
        assert answers == [[True], [False], [True]]
        assert backend.load([key], 30.0) == [b"last \\'\"\0\xff"]


@pytest.mark.parametrize("flag", [0, 2])
def test_an_answer_does_not_depend_on_how_the_server_counts_rows(
    open_backend: BackendOpener, url: str, record: RecordMaker, flag: int
) -> None:
    # 2 is CLIENT_FOUND_ROWS, under which a row that was found and left as it was counts too.
    backend = open_backend(f"{url}&client_flag={flag}")

    assert backend.store([record("a", rank=20, barrier=20)], 10.0) == [True]
    assert backend.store([record("a", rank=20, barrier=20)], 10.0) == [True]
    assert backend.store([record("a", rank=19, barrier=20)], 10.0) == [False]
    assert backend.store([record("a", rank=19), record("b", rank=19)], 10.0) == [False, True]
    assert backend.store([record("a"), record("a")], 10.0) == [True, False]


def test_a_renewal_that_changes_nothing_is_no_loss(
    broker: MysqlBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    broker.publish([QueuedMessage(message_id="m", queue="q", body=b"")], (), 10.0)
    held = broker.fetch(["q"], limit=1, wait=0.0, lease=60.0, worker="w")
    monkeypatch.setattr(broker.database, "now", lambda: 2e9)

    answers = [broker.beat("w", ["q"], held, lease=60.0, timeout=10.0) for _ in range(3)]

    assert [list(answer) for answer in answers] == [[True]] * 3


def test_a_reader_sees_what_was_written_since_it_read_first(
    open_backend: BackendOpener, record: RecordMaker
) -> None:
    reader, writer = open_backend(), open_backend()
    with reader.database.write(30.0) as cursor:
        before = reader.records.load(cursor, ["a"], 0.0)
        writer.store([record("a")], 30.0)
        after = reader.records.load(cursor, ["a"], 0.0)

    assert (before, after) == ([None], [b"body"])


def test_nothing_is_cut_to_fit(open_backend: BackendOpener, record: RecordMaker) -> None:
    backend = open_backend()

    with pytest.raises(ServiceRejectedError, match="too long"):
        backend.store([record("x" * 1025)], 10.0)
    assert backend.load(["x" * 1024], 10.0) == [None]


def test_the_tables_keep_text_readable_for_people(
    open_backend: BackendOpener, record: RecordMaker, run: Run, prefix: str
) -> None:
    open_backend().store([record("é \U0001f600")], 10.0)

    assert run(f"SELECT task_id, name, state FROM {prefix}results") == [
        ("é \U0001f600", "tests.add", "SUCCESS")
    ]


def test_what_workers_look_for_is_found_by_an_index_in_order(
    broker: MysqlBroker, run: Run, prefix: str
) -> None:
    messages = [QueuedMessage(message_id=f"{n}", queue="q", body=b"") for n in range(500)]
    broker.publish(messages, (), 30.0)
    run(f"ANALYZE TABLE {prefix}messages")

    plan = run(
        f"EXPLAIN SELECT seq FROM {prefix}messages WHERE namespace = 'ns' AND queue = 'q' "
        "AND due_at = 0 ORDER BY priority DESC, seq LIMIT 10 FOR UPDATE SKIP LOCKED"
    )

    assert f"{prefix}messages_due" in str(plan)
    assert "filesort" not in str(plan)


@pytest.mark.parametrize(
    ("rest", "hint"),
    [
        ("/db?ssl_ca=/nowhere/ca.pem", "No such file"),
        ("/db?ssl_disabled=perhaps", "ssl_disabled is yes or no"),
        ("/db?password=s3cret", "password has its place before"),
        ("/db?host=elsewhere", "host has its place before"),
        ("/db/more", "more than a database"),
        ("/", "no database"),
    ],
)
def test_what_a_url_cannot_say_is_refused_before_anything_is_opened(rest: str, hint: str) -> None:
    with pytest.raises(UrlError, match=hint) as caught:
        MysqlBackend(Url.parse(f"mariadb://me:s3cret@localhost{rest}"))

    assert "s3cret" not in str(caught.value)


@pytest.fixture
def offering_tls() -> Iterator[MariaDBServer]:
    """A server with a certificate that nobody has signed."""
    with tempfile.TemporaryDirectory() as folder:
        key, certificate = Path(folder, "key.pem"), Path(folder, "certificate.pem")
        made = ["openssl", "req", "-x509", "-nodes", "-newkey", "ec", "-pkeyopt"]
        made += ["ec_paramgen_curve:prime256v1", "-subj", "/CN=nobody", "-days", "2"]
        subprocess.run([*made, "-keyout", key, "-out", certificate], check=True)
        for each in (Path(folder), key, certificate):
            each.chmod(0o755)  # the server runs under an account of its own
        with MariaDBServer(arguments=[f"--ssl-key={key}", f"--ssl-cert={certificate}"]) as server:
            yield server


def test_tls_is_spoken_where_it_is_offered_and_costs_no_reading_of_certificates(
    offering_tls: MariaDBServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(ssl.SSLContext, "load_default_certs")

    connection = connect(parameters(Url.parse(offering_tls.url))[0], 30.0)

    with contextlib.closing(connection), connection.cursor() as cursor:
        cursor.execute("SHOW STATUS LIKE 'Ssl_version'")
        assert "TLS" in str(cursor.fetchall())
