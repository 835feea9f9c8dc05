"""Talks to the cluster that a server at HOST PORT says it is, with redis-py's RedisCluster.

Ends with 1 and a trace at the first surprise.
"""
import sys

import redis
from redis.cluster import RedisCluster


def main():
    host, port, nodes = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    db = RedisCluster(host=host, port=port, decode_responses=True)
    assert len(db.get_primaries()) == nodes, db.get_nodes()
    keys = [f"cluster:{number}" for number in range(500)]
    for number, key in enumerate(keys):
        assert db.set(key, number) is True
    for number, key in enumerate(keys):
        assert db.get(key) == str(number)
    assert db.keyslot("cluster:1") == db.cluster_keyslot("cluster:1")
    assert db.incr("counter") == 1
    assert db.append("counter", "0") == 2
    assert db.mset_nonatomic({key: "x" for key in keys[:20]}) is not None
    assert db.mget_nonatomic(keys[:20]) == ["x"] * 20
    assert db.delete(*keys[:10]) == 10
    assert db.exists(*keys) == 490
    with db.pipeline() as pipe:
        for key in keys[100:200]:
            pipe.get(key)
        assert pipe.execute() == [str(number) for number in range(100, 200)]
    assert db.mset({"{t}a": "1", "{t}b": "2"}) is True
    assert db.rename("{t}a", "{t}c") is True
    print(f"redis-py {redis.__version__}, {nodes} nodes: ok")


main()
