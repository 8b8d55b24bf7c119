"""Private services of several servers start whole, fail in parts, and leave nothing behind."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from upshot import clock
from upshot_conformance.servers import (
    Ensemble,
    RedisClusterServer,
    RedisSentinelServer,
    RedisServer,
    ServerError,
)


def eventually(is_so: Callable[[], bool]) -> None:
    """Wait until something is so; fail after a minute."""
    deadline = clock.Deadline(60.0)
    while not is_so():
        assert not deadline.expired
        clock.sleep(0.05)


@pytest.fixture(scope="module")
def cluster() -> Iterator[RedisClusterServer]:
    with RedisClusterServer() as running:
        yield running


def test_a_cluster_serves_every_slot_on_three_masters(cluster: RedisClusterServer) -> None:
    masters = [cluster.master_of(slot) for slot in (0, 5460, 5461, 10921, 10922, 16383)]

    assert masters == [node for node in cluster.nodes for _ in range(2)]
    assert (
        cluster.url
        == "redis+cluster://" + ",".join(f"127.0.0.1:{node.port}" for node in cluster.nodes) + "/0"
    )
    assert cluster.running


def test_a_slot_moves_with_its_keys(cluster: RedisClusterServer) -> None:
    source, target = cluster.master_of(12182), cluster.nodes[0]  # the slot of "foo"
    source.ask("SET", "foo", "bar")
    cluster.move(12182, target)

    assert cluster.master_of(12182) is target
    assert target.ask("GET", "foo") == "bar"
    with pytest.raises(ServerError, match="MOVED"):
        source.ask("GET", "foo")
    cluster.move(12182, source)
    assert source.ask("GET", "foo") == "bar"


def test_a_killed_node_is_part_of_the_cluster_again_after_a_restart(
    cluster: RedisClusterServer,
) -> None:
    node = cluster.nodes[1]
    name = node.node_id
    node.kill()
    assert not cluster.running
    node.restart()

    assert node.node_id == name
    eventually(lambda: "cluster_state:ok" in node.ask("CLUSTER", "INFO"))


def test_a_cluster_is_whole_again_after_all_were_killed(cluster: RedisClusterServer) -> None:
    cluster.nodes[0].ask("SET", "bar", "x")  # slot 5061
    cluster.kill()
    assert not any(node.running for node in cluster.nodes)
    cluster.restart()

    assert cluster.running
    assert cluster.nodes[0].ask("GET", "bar") == ""


def test_a_replica_of_a_cluster_follows_its_master() -> None:
    with RedisClusterServer(replicas=1) as cluster:
        replica = next(
            node for node in cluster.nodes[3:] if str(cluster.nodes[0].port) in following(node)
        )
        cluster.nodes[0].ask("SET", "bar", "x")

        eventually(lambda: replica.ask("DBSIZE") == "1")


def following(node: RedisServer) -> str:
    return node.ask("INFO", "replication")


def test_sentinels_promote_the_replica_of_a_killed_master() -> None:
    with RedisSentinelServer(down_after=0.5) as service:
        first, second = service.data_servers
        assert service.master is first
        first.kill()

        eventually(lambda: service.master is second)
        eventually(lambda: service.has_role(second, "master"))


def test_sentinels_and_servers_ask_for_their_passwords() -> None:
    with RedisSentinelServer(sentinels=1, password="p 1", sentinel_password='it\'s "2"') as service:
        assert service.master.ask("PING") == "PONG"
        assert service.sentinels[0].ask("PING") == "PONG"
        assert "p%201" in service.master.url
        stranger = RedisServer()
        with pytest.raises(ServerError, match="not started"):
            stranger.ask("PING")


@pytest.mark.parametrize("kind", [RedisClusterServer, RedisSentinelServer])
def test_a_stopped_ensemble_leaves_no_folder_and_starts_again(kind: type[Ensemble]) -> None:
    ensemble = kind()
    ensemble.stop()
    ensemble.start()
    folders = [server.folder for server in ensemble.servers]
    ensemble.pause()
    ensemble.resume()
    ensemble.stop()
    ensemble.stop()

    assert not any(map(Path.exists, folders))
    assert not ensemble.running
    with pytest.raises(ServerError, match="not started"):
        _ = ensemble.url


def test_an_ensemble_of_which_one_cannot_start_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    ensemble = RedisClusterServer()

    def fail() -> None:
        raise ServerError("no")

    monkeypatch.setattr(ensemble.nodes[2], "start", fail)
    with pytest.raises(ServerError, match="no"):
        ensemble.start()

    assert not any(node.running for node in ensemble.nodes)
