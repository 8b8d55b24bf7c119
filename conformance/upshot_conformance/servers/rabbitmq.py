"""A private RabbitMQ, with the Erlang port mapper it cannot do without."""

from __future__ import annotations

import re
from typing import ClassVar

from .base import Server
from .installation import ServerError
from .passwords import new_password
from .ports import LOOPBACK

__all__ = ["RabbitMQServer"]

_PROTOCOL_HEADER = b"AMQP\x00\x00\x09\x01"
_CONNECTION_START = b"\x00\x0a\x00\x0a"  # class 10, method 10
_NODE = "upshot@localhost"
_USER = "upshot"
_VERSION = re.compile(rb"\x07versionS\x00\x00\x00.([0-9.]+)", re.DOTALL)


class _Epmd(Server):
    """The port mapper of one private node: started by Erlang itself, it would stay for ever."""

    name: ClassVar[str] = "epmd"
    programs: ClassVar[tuple[str, ...]] = ("epmd",)
    places: ClassVar[tuple[str, ...]] = ("/usr/lib/erlang/erts-*/bin", *Server.places)
    how_to_install: ClassVar[str] = "run `make services`, or: apt-get install erlang-base"

    @property
    def url(self) -> str:
        """`epmd://127.0.0.1:<port>`, for people to read."""
        return f"epmd://{LOOPBACK}:{self.port}"

    def _command(self) -> list[str]:
        return [str(self._required()), "-port", str(self.port), "-address", LOOPBACK]

    def _answers(self) -> bool:
        with self._connect() as connection:
            connection.sendall(b"\x00\x01n")  # NAMES_REQ; the answer begins with the mapper's port
            return int.from_bytes(connection.recv(4), "big") == self.port


class RabbitMQServer(Server):
    """RabbitMQ with its own node, files, cookie and port mapper, and one user, `upshot`.

    The password is random.

    Args:
        config: more lines for `rabbitmq.conf`: `"heartbeat = 2"`.
        management: serve the HTTP API too, at `api_url`; costs a second more to start.
        start_timeout: seconds the server may take until it answers.
    """

    name: ClassVar[str] = "RabbitMQ"
    programs: ClassVar[tuple[str, ...]] = ("rabbitmq-server",)
    # The one on Debian's PATH is a wrapper that insists on the account `rabbitmq`.
    places_before_path: ClassVar[tuple[str, ...]] = (
        "/usr/lib/rabbitmq/lib/rabbitmq_server-*/sbin",
    )
    how_to_install: ClassVar[str] = "run `make services`, or: apt-get install rabbitmq-server"
    ports_needed: ClassVar[int] = 3  # for clients, for other Erlang nodes, for the HTTP API

    def __init__(
        self, *, config: str = "", management: bool = False, start_timeout: float = 120.0
    ) -> None:
        super().__init__(start_timeout=start_timeout)
        self._password = new_password()
        self._config = config
        self._management = management
        self._port_mapper = _Epmd()

    @classmethod
    def installed(cls) -> bool:
        """True when RabbitMQ and Erlang's port mapper are there."""
        return super().installed() and _Epmd.installed()

    @property
    def url(self) -> str:
        """`amqp://upshot:<password>@127.0.0.1:<port>//`: the virtual host `/`.

        Raises:
            ServerError: the server was not started.
        """
        return f"amqp://{_USER}:{self._password}@{LOOPBACK}:{self.port}//"

    @property
    def api_url(self) -> str:
        """`http://upshot:<password>@127.0.0.1:<port>`: the HTTP API, if it is served.

        Raises:
            ServerError: the server was not started.
        """
        port = self._started().ports[2]
        return f"http://{_USER}:{self._password}@{LOOPBACK}:{port}"

    def control(self, *arguments: str) -> str:
        """Run `rabbitmqctl` on the server and return what it printed, without its headings.

        Raises:
            ServerError: it failed; the message quotes what it said.
        """
        tool = str(self._required().with_name("rabbitmqctl"))
        return self._run([tool, "--quiet", "--node", _NODE, *arguments], self.folder)

    def write_down_queues(self) -> None:
        """Return once every durable queue that was declared will outlive a `kill()`.

        The server logs a declaration and, after it, that it is decided; it confirms after the
        first, and at its next start presumes aborted what is not decided. 3.10.8, killed at once,
        forgot the queue that was declared last in 1 of 40 trials by plain pika.

        Raises:
            ServerError: it does not answer.
        """
        self.control("eval", "mnesia:dump_log().")

    def _prepare(self) -> None:
        self._port_mapper.start()
        self._started().write(
            "rabbitmq.conf",
            f"listeners.tcp.1 = {LOOPBACK}:{self.port}\n"
            f"default_user = {_USER}\ndefault_pass = {self._password}\n"
            # The default, 50 MB, blocks every publisher on a full disk.
            f"disk_free_limit.absolute = 1MB\n{self._api_config()}{self._config}\n",
        )
        plugins = "rabbitmq_management" if self._management else ""
        self._started().write("enabled_plugins", f"[{plugins}].\n")

    def _api_config(self) -> str:
        if not self._management:
            return ""  # the server refuses settings of a plug-in that it does not load
        port = self._started().ports[2]
        return f"management.tcp.ip = {LOOPBACK}\nmanagement.tcp.port = {port}\n"

    def _release(self) -> None:
        self._port_mapper.stop()

    def _environment(self) -> dict[str, str]:
        folder = str(self.folder)
        return {
            "ERL_EPMD_ADDRESS": LOOPBACK,
            "ERL_EPMD_PORT": str(self._port_mapper.port),
            "RABBITMQ_ALLOW_INPUT": "true",  # the script becomes the server, so signals reach it
            "RABBITMQ_CONFIG_FILE": f"{folder}/rabbitmq.conf",
            "RABBITMQ_CONF_ENV_FILE": f"{folder}/none",
            "RABBITMQ_DIST_PORT": str(self._started().ports[1]),
            "RABBITMQ_ENABLED_PLUGINS_FILE": f"{folder}/enabled_plugins",
            "RABBITMQ_LOGS": "-",
            "RABBITMQ_LOG_BASE": folder,
            "RABBITMQ_MNESIA_BASE": f"{folder}/mnesia",
            "RABBITMQ_NODENAME": _NODE,
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": (
                "-noinput -kernel inet_dist_use_interface {127,0,0,1}"
            ),
        }

    def _command(self) -> list[str]:
        return [str(self._required())]

    def _answers(self) -> bool:
        return _CONNECTION_START in self._greeting()

    def _read_version(self) -> str:
        if not self.running:
            raise ServerError("RabbitMQ tells its version only while it runs; call start()")
        found = _VERSION.search(self._greeting())
        return found.group(1).decode() if found else ""

    def _greeting(self) -> bytes:
        """Return the first frame, Connection.Start, which carries the server's properties."""
        with self._connect() as connection, connection.makefile("rwb") as stream:
            stream.write(_PROTOCOL_HEADER)
            stream.flush()
            head = stream.read(7)  # type, channel, and the size of what follows
            return head + stream.read(int.from_bytes(head[3:], "big"))
