"""Somebody between client and server: certificates are checked, and nothing falls back to plain."""

from __future__ import annotations

import contextlib
import socket
import ssl
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from upshot.client import ResultClient
from upshot.errors import ServiceError, ServiceRejectedError
from upshot.record import Record
from upshot.registry import backend_class
from upshot.states import State
from upshot.url import Url
from upshot_conformance.servers import MariaDBServer

from .scoreboard import Score

SECRET = "Zq7Kx9WvmJ4Tr8Bn"
HANDSHAKE = b"\x16\x03"  # what every TLS connection begins with


def make_certificate(folder: Path, name: str) -> Path:
    """Make a certificate for 127.0.0.1 that no authority knows; its key is `name`.key."""
    file = folder / f"{name}.pem"
    make = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"]
    names = ["-subj", f"/CN={name}", "-addext", "subjectAltName=IP:127.0.0.1"]
    subprocess.run(
        [*make, *names, "-keyout", str(file.with_suffix(".key")), "-out", str(file)],
        check=True,
        capture_output=True,
    )
    return file


@pytest.fixture(scope="module")
def certificate() -> Iterator[Path]:
    """One that a server can read whoever it runs as; `other.pem`, beside it, is of another."""
    with tempfile.TemporaryDirectory(prefix="upshot-tls-") as name:
        folder = Path(name)
        made = [make_certificate(folder, each) for each in ("server", "other")]
        for each in (folder, *made, *(one.with_suffix(".key") for one in made)):
            each.chmod(0o755)
        yield made[0]


class Impostor:
    """Answers in a server's place, and keeps what it was told.

    Args:
        certificate: speaks TLS under it; None for a server that has no TLS.
        request: what a client sends before its handshake, PostgreSQL's way; b"" for none.
    """

    def __init__(self, certificate: Path | None, request: bytes = b"") -> None:
        self._context = None
        if certificate is not None:
            self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self._context.load_cert_chain(certificate, certificate.with_suffix(".key"))
        self._request = request
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(0.1)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()
        self.port: int = self._listener.getsockname()[1]
        self.first: list[bytes] = []
        """The first bytes of each connection."""
        self.told = b""
        """What it was told beyond handshakes, in whatever way."""

    def __enter__(self) -> Impostor:
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        self._listener.close()

    def _serve(self) -> None:
        while not self._over.is_set():
            with contextlib.suppress(OSError):
                peer, _ = self._listener.accept()
                with peer:
                    peer.settimeout(5.0)
                    self._answer(peer)

    def _answer(self, peer: socket.socket) -> None:
        if self._request:
            self.told += peer.recv(len(self._request)).removeprefix(self._request)
            peer.sendall(b"N" if self._context is None else b"S")
        if self._context is None:
            said = peer.recv(65536)
            self.first.append(said)
            self.told += said
            peer.sendall(b"-ERR no TLS here\r\n")
            self.told += peer.recv(65536)
            return
        self.first.append(peer.recv(2, socket.MSG_PEEK))
        with self._context.wrap_socket(peer, server_side=True) as secured:
            self.told += secured.recv(65536)


ADDRESSES = {
    "redis": "rediss://u:{0}@127.0.0.1:{1}/0",
    "redis-cluster": "rediss+cluster://u:{0}@127.0.0.1:{1}",
    "redis-sentinel": "rediss+sentinel://u:{0}@127.0.0.1:{1}/mymaster/0",
    "amqp": "amqps://u:{0}@127.0.0.1:{1}//",
    "mongo": "mongodb://u:{0}@127.0.0.1:{1}/?tls=true",
    "postgresql": "postgresql://u:{0}@127.0.0.1:{1}/db?sslmode=verify-full&sslrootcert={2}",
}
SSL_REQUEST = b"\0\0\0\x08\x04\xd2\x16\x2f"


@pytest.mark.experiment(11)
@pytest.mark.parametrize("has_tls", [True, False], ids=["self-signed", "plain"])
@pytest.mark.parametrize("service", [
    pytest.param(each, marks=[] if each in ("redis", "postgresql") else pytest.mark.wide)
    for each in ADDRESSES
])  # fmt: skip
def test_an_impostor_learns_no_password(
    service: str, has_tls: bool, certificate: Path, score: Score
) -> None:
    request = SSL_REQUEST if service == "postgresql" else b""
    with Impostor(certificate if has_tls else None, request) as impostor:
        other = certificate.with_name("other.pem")
        text = ADDRESSES[service].format(SECRET, impostor.port, other)
        score.submitted += 1
        error = refused(text, timeout=5 if has_tls else 1.5)
        score.executed += 1
    assert SECRET not in str(error)
    if any(first and not first.startswith(HANDSHAKE) for first in impostor.first):
        score.surprise(f"it began without TLS: {impostor.first!r:.200}")
    if impostor.told and not impostor.told.startswith(HANDSHAKE):
        score.surprise(f"it told the impostor {impostor.told!r:.200}")
    score.recorded += not score.surprises and SECRET.encode() not in impostor.told
    score.remark(f"{len(impostor.first)} connections")
    score.judge()


def refused(text: str, timeout: float = 5) -> ServiceError:
    """Return the error with which results cannot be had there."""
    url = Url.parse(text)
    with ResultClient(lambda: backend_class(url)(url), url=url, timeout=timeout) as client:
        record = Record(task_id="a", state=State.QUEUED)
        with pytest.raises(ServiceError) as told:
            client.store(record, expires=60)
        return told.value


def test_mariadb_without_tls_is_not_spoken_to_in_plain(
    mariadb_server: MariaDBServer, certificate: Path
) -> None:
    assert "TLS" in str(refused(f"{mariadb_server.url}?ssl_ca={certificate}"))


@pytest.fixture(scope="module")
def secured_mariadb(certificate: Path) -> Iterator[MariaDBServer]:
    """One with TLS, under the certificate."""
    key = certificate.with_suffix(".key")
    with MariaDBServer(arguments=[f"--ssl-cert={certificate}", f"--ssl-key={key}"]) as server:
        yield server


def test_the_certificate_of_mariadb_is_checked_unless_the_url_says_no(
    secured_mariadb: MariaDBServer, certificate: Path
) -> None:
    text = secured_mariadb.url
    for accepted in (
        f"{text}?ssl_ca={certificate}",
        f"{text}?ssl_ca={certificate}&ssl_verify_identity=yes",
        f"{text}?ssl_verify_cert=no&ssl_key_password=x",
    ):
        url = Url.parse(accepted)
        with ResultClient(partial(backend_class(url), url), url=url) as client:
            assert client.load("a") is None
    assert isinstance(refused(f"{text}?ssl_verify_cert=yes"), ServiceRejectedError)
    assert isinstance(refused(f"{text}?ssl_verify_identity=yes"), ServiceRejectedError)
