"""What `upshot doctor` asks a RabbitMQ: all that AMQP tells is its name, version and alarms."""

from __future__ import annotations

from typing import Any, Final

from upshot.finding import Advice, Finding, Level, advice_for
from upshot_backends.amqp.connection import Session

__all__ = ["advise", "look"]

_OLDEST: Final = (3, 10)

_ADVICE: Final[Advice] = (
    (
        ("access_refused - login", "authentication mechanism", "probableauthentication"),
        (
            "correct user and password in the URL; the user `guest` may come from the server's "
            "own machine only"
        ),
    ),
    (
        ("access to queue", "access to exchange", "access_refused - access"),
        (
            "let the user configure, write and read the queues: rabbitmqctl set_permissions -p "
            "VHOST USER '^(NAMESPACE/|upshot.reply)' '.*' '^(NAMESPACE/|upshot.reply)'"
        ),
    ),
    (
        ("access to vhost", "probableaccessdenied", "vhost '", "vhost /", "not_allowed"),
        (
            "correct the virtual host, the URL's path (`//` is `/`), or let the user in: "
            "rabbitmqctl set_permissions"
        ),
    ),
    (
        ("no answer within", "no receipt within", "silent for too long"),
        (
            "see whether it hangs, and `rabbitmqctl status` for alarms: it takes no messages "
            "while it lacks memory or disk space"
        ),
    ),
    (
        ("precondition_failed", "406"),
        "delete the queue that the message names: somebody made it with other properties",
    ),
    (
        ("frame", "lost", "stream", "closed", "protocol", "reset"),
        "correct the port: 5672 for amqp://, 5671 for amqps://",
    ),
    (("wrong_version_number", "wrong version number"), "write amqp://, or take the port for TLS"),
)


async def look(session: Session) -> list[Finding]:
    """Read what the server said of itself when the connection was opened."""
    told = session.server
    name, version = _text(told.get("product")) or "an AMQP server", _text(told.get("version"))
    cluster = _text(told.get("cluster_name"))
    said = f"{name} {version}".strip() + (f", node or cluster {cluster}" if cluster else "")
    known = tuple(int(part) for part in version.split(".") if part.isdigit())
    if name != "RabbitMQ":
        return [
            Finding(
                Level.WARNING,
                said,
                "upshot is tested with RabbitMQ, and needs its publisher confirms",
            )
        ]
    if known and known < _OLDEST:
        return [Finding(Level.PROBLEM, f"{said}: too old", change="upgrade to 3.10 or newer")]
    return [Finding(Level.OK, said)]


def advise(said: str) -> str:
    """Return what to change where RabbitMQ, or pika, said this; "" if unknown."""
    return advice_for(said, _ADVICE)


def _text(value: Any) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value or "")
