"""Talks to a server at HOST PORT with redis-py, as an application would; ends with 1 and a trace at the first surprise.

Uses what redis-py 4.3 (Debian 12) has; RESP3 from redis-py 5 on.
"""
import sys
import threading
import time

import redis


def strings(db):
    assert db.ping() is True
    assert db.set("text", "words") is True
    assert db.get("text") == "words"
    assert db.get("nothing") is None
    assert db.set("text", "other", nx=True) is None
    assert db.set("text", "other", xx=True, get=True) == "words"
    assert db.set("fleeting", "x", px=100_000) is True
    assert 0 < db.pttl("fleeting") <= 100_000
    assert db.set("fleeting", "y", keepttl=True) is True
    assert db.ttl("fleeting") > 90
    assert db.setnx("text", "x") is False
    assert db.setex("fleeting", 50, "z") is True
    assert db.psetex("fleeting", 50_000, "z") is True
    assert db.getset("text", "third") == "other"
    assert db.getdel("text") == "third"
    assert db.getex("fleeting", persist=True) == "z"
    assert db.ttl("fleeting") == -1
    assert db.ttl("nothing") == -2
    assert db.mset({f"many:{number}": number for number in range(50)}) is True
    assert db.mget([f"many:{number}" for number in range(50)] + ["nothing"]) == [str(n) for n in range(50)] + [None]
    assert db.msetnx({"{tag}a": 1, "{tag}b": 2}) in (True, 1)
    assert not db.msetnx({"{tag}b": 3, "{tag}c": 3})
    assert db.get("{tag}c") is None
    assert db.append("line", "abc") == 3
    assert db.append("line", "def") == 6
    assert db.strlen("line") == 6
    assert db.getrange("line", 1, -2) == "bcde"
    assert db.setrange("line", 3, "XYZ") == 6
    assert db.get("line") == "abcXYZ"
    assert db.incr("number") == 1
    assert db.incrby("number", 10) == 11
    assert db.decr("number", 4) == 7
    assert db.incrbyfloat("number", 0.5) == 7.5
    try:
        db.incr("line")
        raise AssertionError("a word was counted up")
    except redis.ResponseError as error:
        assert str(error) == "value is not an integer or out of range", error


def keys(db):
    assert db.exists("line", "number", "nothing") == 2
    assert db.touch("line", "nothing") == 1
    assert db.type("line") == "string"
    assert db.type("nothing") == "none"
    assert db.expire("line", 100) is True
    assert db.expiretime("line") > time.time() if hasattr(db, "expiretime") else True
    assert db.persist("line") is True
    assert db.expireat("line", int(time.time()) + 100) is True
    assert db.pexpire("line", 100_000) is True
    assert db.pexpireat("line", int(time.time() * 1000) + 100_000) is True
    assert db.rename("{tag}a", "{tag}z") is True
    assert db.renamenx("{tag}z", "{tag}b") is False
    assert db.copy("{tag}z", "{tag}y") is True
    assert db.get("{tag}y") == "1"
    assert db.object("encoding", "line") is not None
    assert db.memory_usage("line") > 0
    everything = set(db.keys("*"))
    assert db.dbsize() == len(everything)
    assert set(db.scan_iter(count=7)) == everything
    assert set(db.scan_iter(match="many:1*")) == {key for key in everything if key.startswith("many:1")}
    assert set(db.scan_iter(_type="string")) == everything
    assert db.randomkey() in everything
    assert db.delete("many:1", "many:2", "nothing") == 2
    assert db.unlink("many:3", "many:4") == 2
    try:
        db.rename("{tag}nothing", "{tag}q")
        raise AssertionError("nothing was renamed")
    except redis.ResponseError as error:
        assert "no such key" in str(error), error


def pipelines(db):
    with db.pipeline(transaction=False) as pipe:
        for number in range(1_000):
            pipe.set(f"pipe:{number}", number)
            pipe.get(f"pipe:{number}")
        replies = pipe.execute()
    assert replies[0::2] == [True] * 1_000
    assert replies[1::2] == [str(number) for number in range(1_000)]
    with db.pipeline(transaction=False) as pipe:
        pipe.incr("line").get("line").incr("pipe:1")
        replies = pipe.execute(raise_on_error=False)
    assert isinstance(replies[0], redis.ResponseError)
    assert replies[1:] == ["abcXYZ", 2]


def server(db):
    info = db.info()
    for name in ("redis_version", "uptime_in_seconds", "connected_clients", "used_memory", "maxmemory",
                 "total_commands_processed", "keyspace_hits", "role", "used_cpu_sys", "evicted_keys", "expired_keys"):
        assert name in info, f"INFO lacks {name}"
    assert info["db0"]["keys"] == db.dbsize()
    assert "maxmemory-policy" in db.config_get("maxmemory*")
    assert db.client_setname("tester") is True
    assert db.client_getname() == "tester"
    assert db.client_id() > 0
    assert any(client["name"] == "tester" for client in db.client_list())
    seconds, micros = db.time()
    assert abs(seconds - time.time()) < 60 and 0 <= micros < 1_000_000
    assert db.echo("again") == "again"
    commands = db.command()
    assert "get" in commands and commands["get"]["arity"] == 2
    assert db.command_count() >= 60
    assert db.command_getkeys("MSET", "a", "1", "b", "2") == ["a", "b"]
    assert db.slowlog_len() >= 0 and isinstance(db.slowlog_get(), list)
    assert db.config_resetstat() is True


def binary(host, port):
    db = redis.Redis(host, port)
    value = bytes(range(256)) * 300
    assert db.set(b"\x00\r\n\xff", value) is True
    assert db.get(b"\x00\r\n\xff") == value
    big = b"b" * 5_000_000
    assert db.set("big", big) is True
    assert db.get("big") == big


def threads(db):
    def count():
        for _ in range(200):
            db.incr("shared")
    workers = [threading.Thread(target=count) for _ in range(8)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert db.get("shared") == "1600"


def main():
    host, port = sys.argv[1], int(sys.argv[2])
    protocols = [2, 3] if int(redis.__version__.split(".")[0]) >= 5 else [2]
    for protocol in protocols:
        options = {"protocol": protocol} if protocol == 3 else {}
        db = redis.Redis(host, port, db=0, decode_responses=True, client_name="first", health_check_interval=1,
                         **options)
        assert db.flushall() is True
        for part in (strings, keys, pipelines, server, threads):
            part(db)
        binary(host, port)
        assert db.flushdb() is True
        assert db.dbsize() == 0
    print(f"redis-py {redis.__version__}, RESP {protocols}: ok")


main()
