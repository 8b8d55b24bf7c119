"""A private Redis Cluster: masters that share the slots, with replicas on request."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from .base import Server
from .ensemble import Ensemble
from .ports import LOOPBACK
from .redis import RedisServer

__all__ = ["RedisClusterServer", "RedisNode"]

_SLOTS = 16384
"""How many slots every Redis Cluster has; see the cluster specification."""


class RedisNode(RedisServer):
    """One node of a cluster; it knows no other until somebody introduces it.

    Args:
        node_timeout: seconds without an answer after which other nodes call it failed.
        full_coverage: whether it refuses every key while any slot has no master.
    """

    name: ClassVar[str] = "Redis"
    ports_needed: ClassVar[int] = 2  # for clients, and for the other nodes

    def __init__(
        self, *, node_timeout: float, full_coverage: bool, start_timeout: float = 60.0
    ) -> None:
        arguments = ["--cluster-enabled", "yes", "--cluster-config-file", "nodes.conf"]
        arguments += ["--cluster-node-timeout", f"{node_timeout * 1000:.0f}"]
        arguments += ["--cluster-require-full-coverage", "yes" if full_coverage else "no"]
        # Otherwise a master would wait five seconds for further replicas.
        arguments += ["--repl-diskless-sync-delay", "0"]
        super().__init__(arguments=arguments, start_timeout=start_timeout)

    @property
    def bus_port(self) -> int:
        """The port for the other nodes.

        Raises:
            ServerError: the server was not started.
        """
        return self._started().ports[1]

    @property
    def node_id(self) -> str:
        """What the cluster calls this node; kept across `restart()`."""
        return self.ask("CLUSTER", "MYID")

    def _command(self) -> list[str]:
        # By default the bus port is the client port plus 10000, which may be no port at all.
        return [*super()._command(), "--cluster-port", str(self.bus_port)]


class RedisClusterServer(Ensemble):
    """A cluster of real nodes on 127.0.0.1, without persistence: a killed master forgets its keys.

    Args:
        masters: how many; the slots are shared out evenly, in order.
        replicas: how many for each master.
        node_timeout: seconds without an answer after which a node counts as failed. Redis's own
            default is so long that a busy machine makes no healthy node look failed.
        full_coverage: whether every key is refused while any slot has no master.
        start_timeout: seconds until each node answers, and then until the cluster is whole.
    """

    name: ClassVar[str] = "Redis Cluster"

    def __init__(
        self,
        *,
        masters: int = 3,
        replicas: int = 0,
        node_timeout: float = 15.0,
        full_coverage: bool = True,
        start_timeout: float = 60.0,
    ) -> None:
        super().__init__(start_timeout=start_timeout)
        self.nodes = [
            RedisNode(
                node_timeout=node_timeout, full_coverage=full_coverage, start_timeout=start_timeout
            )
            for _ in range(masters * (1 + replicas))
        ]
        """The masters first, then their replicas in turns."""
        self._masters = masters

    @property
    def servers(self) -> Sequence[Server]:
        """Every node, masters first."""
        return self.nodes

    @property
    def url(self) -> str:
        """`redis+cluster://127.0.0.1:<port>,127.0.0.1:<port>,…/0` with every node.

        Raises:
            ServerError: the cluster was not started.
        """
        return f"redis+cluster://{','.join(f'{LOOPBACK}:{node.port}' for node in self.nodes)}/0"

    def master_of(self, slot: int) -> RedisNode:
        """Return the node that serves `slot`, as the first running node sees it."""
        somebody = next(node for node in self.nodes if node.running)
        for line in somebody.ask("CLUSTER", "NODES").splitlines():
            node_id, _, flags, *_ = fields = line.split(" ")
            ranges = [part for part in fields[8:] if not part.startswith("[")]  # no open slots
            if "master" in flags and any(slot in _range(part) for part in ranges):
                return next(node for node in self.nodes if node.running and node.node_id == node_id)
        raise LookupError(f"no running node serves slot {slot}")

    def move(self, slot: int, target: RedisNode) -> None:
        """Hand a slot and its keys to another master, as `redis-cli --cluster reshard` does."""
        source = self.master_of(slot)
        self.open_slot(slot, target)
        while keys := source.ask("CLUSTER", "GETKEYSINSLOT", slot, 100).splitlines():
            for key in keys:
                source.ask("MIGRATE", LOOPBACK, target.port, key, 0, 5000)
        self.close_slot(slot, target)

    def open_slot(self, slot: int, target: RedisNode) -> None:
        """Begin to move a slot: its keys may be with the source or with the target."""
        source = self.master_of(slot)
        target.ask("CLUSTER", "SETSLOT", slot, "IMPORTING", source.node_id)
        source.ask("CLUSTER", "SETSLOT", slot, "MIGRATING", target.node_id)

    def close_slot(self, slot: int, target: RedisNode) -> None:
        """End a move: tell every node that the slot is the target's, the target first.

        Returns once all running nodes agree. A second move before that could take a number that
        another node has given to its view of the slots, and one of the two would be undone.
        """
        running = [node for node in self.nodes if node.running]
        for node in sorted(running, key=lambda node: node is not target):
            if "role:master" in node.ask("INFO", "replication"):
                node.ask("CLUSTER", "SETSLOT", slot, "NODE", target.node_id)
        self._wait_until(
            lambda: len({_view(node, target.node_id) for node in running}) == 1,
            f"agree on the slot {slot}",
        )

    def _introduce(self) -> None:
        masters, replicas = self.nodes[: self._masters], self.nodes[self._masters :]
        for number, node in enumerate(masters):
            first = _SLOTS * number // self._masters
            last = _SLOTS * (number + 1) // self._masters - 1
            node.ask("CLUSTER", "ADDSLOTSRANGE", first, last)
        for number, node in enumerate(self.nodes, start=1):
            node.ask("CLUSTER", "SET-CONFIG-EPOCH", number)  # so that no two begin with the same
        for node in self.nodes[1:]:
            node.ask("CLUSTER", "MEET", LOOPBACK, self.nodes[0].port, self.nodes[0].bus_port)
        self._wait_until(self._is_acquainted, "introduce its nodes to each other")
        for number, node in enumerate(replicas):
            node.ask("CLUSTER", "REPLICATE", masters[number % self._masters].node_id)

    def _is_acquainted(self) -> bool:
        """True when every node knows every other's name, beyond the first handshake."""
        names = {node.node_id for node in self.nodes}
        return all(names == _known(node) for node in self.nodes)

    def _is_whole(self) -> bool:
        replicas = len(self.nodes) - self._masters
        following = [node.ask("INFO", "replication") for node in self.nodes]
        return sum("master_link_status:up" in text for text in following) == replicas and all(
            _is_content(node) for node in self.nodes
        )


def _is_content(node: RedisNode) -> bool:
    """True when a node serves keys and has heard who has which slot; either may be first."""
    lines = node.ask("CLUSTER", "INFO").splitlines()
    return {"cluster_state:ok", f"cluster_slots_ok:{_SLOTS}"}.issubset(map(str.strip, lines))


def _view(node: RedisNode, other: str) -> tuple[str, ...]:
    """Return the epoch and the slots that `node` believes another to have."""
    lines = [line.split(" ") for line in node.ask("CLUSTER", "NODES").splitlines()]
    fields = next(fields for fields in lines if fields[0] == other)
    return fields[6], *(part for part in fields[8:] if not part.startswith("["))


def _known(node: RedisNode) -> set[str]:
    lines = node.ask("CLUSTER", "NODES").splitlines()
    return {line.split(" ")[0] for line in lines if "handshake" not in line}


def _range(text: str) -> range:
    """Read `5` or `5-9`."""
    first, _, last = text.partition("-")
    return range(int(first), int(last or first) + 1)
