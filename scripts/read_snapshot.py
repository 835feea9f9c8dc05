#!/usr/bin/env python3
# Reads and verifies a snapshot with nothing but its schema. What follows is also what --help prints.
"""Reads a snapshot of Eyot with the classes that protoc makes of snapshot.proto: proof that any program can.

    read_snapshot.py FILE              verifies FILE and prints what it holds, as one JSON object
    read_snapshot.py --entries FILE    verifies FILE and prints each entry as a line of JSON

FILE is a whole database (`eyot snapshot save`) or one shard (a .snap file of a data directory). Everything that
docs/SNAPSHOT.md promises is checked: checksums, counts, order, and that the footer is there. One message is held at a
time, and one large value. Exit code 0: whole; 1: damaged or not a snapshot; 2: something that this script needs is
missing.

Keys are "key" where they are UTF-8 and "key_base64" where they are not. A value that is a text is "value"; any other is
"value_tlv_base64", the bytes that docs/PROTOCOL.md describes.

Needs protoc and Python's protobuf (Debian: protobuf-compiler, python3-protobuf), for compressed files also
python3-zstandard, and is faster with python3-crc32c.
"""
import argparse
import base64
import importlib
import json
import os
import subprocess
import sys
import tempfile

SCHEMA_DIRECTORY = os.path.join(os.path.dirname(os.path.realpath(__file__)), "..", "protocol", "proto")
SCHEMA = "eyot/snapshot/v1/snapshot.proto"

FORMAT = "eyot snapshot"
FORMAT_VERSION = 1
SLOT_COUNT = 16_384
# The bounds of the format, by the names that docs/SNAPSHOT.md gives them.
MAX_MESSAGE_BYTES = 4 << 20
MAX_CHUNK_ENTRIES = 32_768
MAX_INLINE_VALUE_BYTES = 1 << 20
VALUE_PART_BYTES = 1 << 20
MAX_VALUE_BYTES = 512 << 20
MAX_KEY_BYTES = 64 << 10
# The checksum's field: number 15, type 5, then 4 bytes.
CHECKSUM_TAG = 0x7D
CHECKSUM_FIELD_BYTES = 5

TOTALS = ("entries", "key_bytes", "value_bytes", "expiring", "large_values")


class NotWhole(Exception):
    """The file is damaged, cut off, or not a snapshot."""


class Missing(Exception):
    """Something that this script needs is not installed."""


def generated_classes():
    """The module that protoc makes of the schema, made anew: it fits the protobuf that is installed."""
    with tempfile.TemporaryDirectory() as directory:
        command = ["protoc", f"--proto_path={SCHEMA_DIRECTORY}", f"--python_out={directory}", SCHEMA]
        try:
            subprocess.run(command, check=True)
        except FileNotFoundError:
            raise Missing("protoc is not installed (Debian: protobuf-compiler)") from None
        except subprocess.CalledProcessError as error:
            raise Missing(f"protoc failed with status {error.returncode}: {' '.join(command)}") from None
        sys.path.insert(0, directory)
        sys.dont_write_bytecode = True
        try:
            return importlib.import_module("eyot.snapshot.v1.snapshot_pb2")
        except ModuleNotFoundError as error:
            raise Missing(f"{error} (Debian: python3-protobuf)") from None
        finally:
            sys.path.remove(directory)


def crc32c_table():
    table = []
    for byte in range(256):
        for _ in range(8):
            byte = byte >> 1 ^ (0x82F63B78 if byte & 1 else 0)
        table.append(byte)
    return table


def crc32c_function():
    """crc32c(bytes, start): CRC-32C that goes on from `start`."""
    try:
        return importlib.import_module("crc32c").crc32c
    except ModuleNotFoundError:
        pass
    table = crc32c_table()

    def crc32c(data, start=0):
        crc = start ^ 0xFFFFFFFF
        for byte in data:
            crc = crc >> 8 ^ table[(crc ^ byte) & 0xFF]
        return crc ^ 0xFFFFFFFF

    return crc32c


def crc16_table():
    table = []
    for byte in range(256):
        crc = byte << 8
        for _ in range(8):
            crc = (crc << 1 ^ (0x1021 if crc & 0x8000 else 0)) & 0xFFFF
        table.append(crc)
    return table


CRC16 = crc16_table()


def slot(key):
    """CRC-16/XMODEM of the key or of its hash tag, modulo 16,384."""
    opened = key.find(b"{")
    if opened >= 0:
        closed = key.find(b"}", opened + 1)
        if closed > opened + 1:
            key = key[opened + 1 : closed]
    crc = 0
    for byte in key:
        crc = (crc << 8 ^ CRC16[(crc >> 8 ^ byte) & 0xFF]) & 0xFFFF
    return crc % SLOT_COUNT


def decompress(compressed):
    try:
        zstandard = importlib.import_module("zstandard")
    except ModuleNotFoundError:
        raise Missing("the file is compressed, and zstandard is not installed (Debian: python3-zstandard)") from None
    require(0 < compressed.chunk_bytes <= MAX_MESSAGE_BYTES, "a compressed chunk claims an impossible length")
    try:
        chunk = zstandard.ZstdDecompressor().decompress(compressed.compressed, max_output_size=compressed.chunk_bytes)
    except zstandard.ZstdError as error:
        raise NotWhole(f"a compressed chunk cannot be decompressed: {error}") from None
    require(len(chunk) == compressed.chunk_bytes, "a compressed chunk has another length than it claims")
    return chunk


def require(holds, problem):
    if not holds:
        raise NotWhole(problem)


class Messages:
    """The messages of a file, one after the other, their checksums verified."""

    def __init__(self, file, classes):
        self.file = file
        self.classes = classes
        self.crc32c = crc32c_function()
        self.number = -1  # of the message in hand
        self.offset = 0  # where it begins
        self.end = 0  # where it ends

    def next(self, chain):
        """The next message and its checksum, which starts from `chain`. None at the end of the file."""
        self.number += 1
        self.offset = self.end
        length_bytes = self.file.read(4)
        if not length_bytes:
            return None
        length = int.from_bytes(length_bytes, "little")
        require(len(length_bytes) == 4, "the file ends inside a length")
        require(length <= MAX_MESSAGE_BYTES, f"a message claims to have {length} bytes")
        raw = self.file.read(length)
        require(len(raw) == length, "the file ends inside a message")
        self.end += 4 + length
        has_checksum = length >= CHECKSUM_FIELD_BYTES and raw[-CHECKSUM_FIELD_BYTES] == CHECKSUM_TAG
        require(has_checksum, "a message has no checksum")
        stored = int.from_bytes(raw[-4:], "little")
        covered = length_bytes + raw[:-CHECKSUM_FIELD_BYTES]
        computed = self.crc32c(covered, chain)
        require(stored == computed, f"a checksum is {stored:#010x} and should be {computed:#010x}")
        message = self.classes.SnapshotMessage()
        try:
            message.ParseFromString(raw)
        except Exception as error:  # DecodeError; its module differs between versions of protobuf
            raise NotWhole(f"not a message of the schema: {error}") from None
        return message, stored


def column(numbers, count, name):
    """A column of a chunk with one element for each entry."""
    if len(numbers) == 1:
        return [numbers[0]] * count
    require(len(numbers) == count, f"the column {name} has {len(numbers)} numbers for {count} entries")
    return numbers


class Shard:
    """What has come of a shard: yields its entries in order, and counts them."""

    def __init__(self, header, began_at, number):
        require(header.format == FORMAT, "this is not a snapshot of Eyot")
        require(header.format_version == FORMAT_VERSION, f"it has format version {header.format_version}")
        require(0 < header.shard_count <= SLOT_COUNT and header.shard < header.shard_count, "a header of no shard")
        self.header = header
        self.began_at = began_at
        self.first_message = number
        self.last = None
        self.totals = dict.fromkeys(TOTALS, 0)

    def entry(self, key, behind, position, expires_at_us):
        place = (slot(key), key)
        require(len(key) <= MAX_KEY_BYTES and position <= 0xFFFF and behind <= self.header.index, "an impossible entry")
        require(self.last is None or self.last < place, "a key does not come after the key before it")
        shard = place[0] * self.header.shard_count // SLOT_COUNT
        require(shard == self.header.shard, f"a key belongs to shard {shard}")
        self.last = place
        self.totals["entries"] += 1
        self.totals["key_bytes"] += len(key)
        self.totals["expiring"] += expires_at_us is not None
        return {"key": key, "index": self.header.index - behind, "position": position, "expires_at_us": expires_at_us}

    def chunk(self, chunk):
        count = chunk.entry_count
        require(0 < count <= MAX_CHUNK_ENTRIES, f"a chunk of {count} entries")
        key_bytes = column(chunk.key_bytes, count, "key_bytes")
        shared_bytes = chunk.shared_bytes or [0] * count
        require(len(shared_bytes) == count, "the column shared_bytes has not one number for each entry")
        value_bytes = column(chunk.value_bytes, count, "value_bytes")
        behind = column(chunk.index_behind, count, "index_behind")
        position = column(chunk.position, count, "position")
        expires = self.expiries(chunk)
        key, key_at, value_at = b"", 0, 0
        for n in range(count):
            own = key_bytes[n] - shared_bytes[n]
            require(own >= 0 and shared_bytes[n] <= len(key), "a key shares more than there is")
            key = key[: shared_bytes[n]] + chunk.keys[key_at : key_at + own]
            value = chunk.values[value_at : value_at + value_bytes[n]]
            require(len(key) == key_bytes[n] and len(value) == value_bytes[n] > 0, "a key or a value is cut off")
            require(len(value) <= MAX_INLINE_VALUE_BYTES, "a value is too long for a chunk")
            key_at += own
            value_at += len(value)
            entry = self.entry(key, behind[n], position[n], expires.get(n))
            self.totals["value_bytes"] += len(value)
            yield {**entry, "value": value}
        require(key_at == len(chunk.keys), "a chunk has more bytes of keys than their lengths say")
        require(value_at == len(chunk.values), "a chunk has more bytes of values than their lengths say")

    @staticmethod
    def expiries(chunk):
        fits = "the expiries of a chunk do not fit its entries"
        require(len(chunk.expiring_gap) == len(chunk.expires_after_us), fits)
        expires, next_entry = {}, 0
        for gap, after_us in zip(chunk.expiring_gap, chunk.expires_after_us):
            expires[next_entry + gap] = chunk.expires_from_us + after_us
            next_entry += gap + 1
        require(next_entry <= chunk.entry_count, fits)
        return expires

    def large_value(self, large, messages, chain):
        """The entry, its value put together from the parts that follow, and the checksum of the last one."""
        require(MAX_INLINE_VALUE_BYTES < large.value_bytes <= MAX_VALUE_BYTES, "a large value of an impossible length")
        expires_at_us = large.expires_at_us if large.HasField("expires_at_us") else None
        entry = self.entry(large.key, large.index_behind, large.position, expires_at_us)
        value = bytearray()
        while len(value) < large.value_bytes:
            found = messages.next(chain)
            require(found is not None, "the file ends inside a large value")
            message, chain = found
            require(message.WhichOneof("body") == "value_part", "a part of a value is missing")
            part = message.value_part.bytes
            require(len(part) == min(VALUE_PART_BYTES, large.value_bytes - len(value)), "a part has another length")
            value += part
        self.totals["value_bytes"] += len(value)
        self.totals["large_values"] += 1
        return {**entry, "value": bytes(value)}, chain

    def footer(self, footer, messages):
        for name in TOTALS:
            stated = getattr(footer.totals, name)
            require(stated == self.totals[name], f"a footer says {name} {stated}, and it is {self.totals[name]}")
        require(footer.messages == messages.number - self.first_message, "a footer has another number of messages")
        require(footer.stream_bytes == messages.offset - self.began_at, "a footer has another length of the stream")


def read_shard(first, chain, messages, told):
    """Yields the entries of the shard whose header is `first`; returns its footer's checksum."""
    shard = Shard(first.shard_header, messages.offset, messages.number)
    while True:
        found = messages.next(chain)
        require(found is not None, "the file ends before a shard's footer")
        message, chain = found
        body = message.WhichOneof("body")
        if body == "chunk":
            yield from shard.chunk(message.chunk)
        elif body == "compressed_chunk":
            chunk = messages.classes.Chunk()
            require(message.compressed_chunk.compression == 1, "a chunk is compressed in an unknown way")
            chunk.ParseFromString(decompress(message.compressed_chunk))
            yield from shard.chunk(chunk)
        elif body == "large_value":
            entry, chain = shard.large_value(message.large_value, messages, chain)
            yield entry
        elif body == "shard_footer":
            shard.footer(message.shard_footer, messages)
            header = shard.header
            told["shards"].append({"shard": header.shard, "index": header.index, "term": header.term, **shard.totals})
            return chain
        else:
            require(body is None, f"a {body} stands inside a shard")


def read(file, classes, told):
    """Yields the entries of a shard's stream or of a file, and fills in what it holds."""
    messages = Messages(file, classes)
    try:
        yield from read_all(messages, told)
    except NotWhole as error:
        raise NotWhole(f"message {messages.number}, which begins at byte {messages.offset}: {error}") from None


def read_all(messages, told):
    found = messages.next(0)
    require(found is not None, "the file is empty")
    first, chain = found
    body = first.WhichOneof("body")
    require(body in ("file_header", "shard_header"), "this is not the beginning of a snapshot of Eyot")
    header = getattr(first, body)
    require(header.format == FORMAT, "this is not a snapshot of Eyot")
    require(header.format_version == FORMAT_VERSION, f"it has format version {header.format_version}")
    told.update(kind=body[: -len("_header")], node_uuid=header.node_uuid.hex(), shard_count=header.shard_count)
    told["shards"] = []
    if body == "shard_header":
        yield from read_shard(first, chain, messages, told)
    else:
        yield from read_shards(header, chain, messages, told)
    require(messages.next(0) is None, "something stands behind the last footer")
    told["bytes"] = messages.end
    for name in TOTALS:
        told[name] = sum(shard[name] for shard in told["shards"])


def read_shards(header, chain, messages, told):
    shards_crc32c = messages.crc32c(chain.to_bytes(4, "little"))
    while True:
        found = messages.next(0)
        require(found is not None, "the file ends before its footer")
        message, chain = found
        body = message.WhichOneof("body")
        if body == "shard_header":
            shard = message.shard_header
            same = (shard.shard_count, shard.node_uuid) == (header.shard_count, header.node_uuid)
            require(same and shard.shard == len(told["shards"]), "a shard of another file, or out of order")
            chain = yield from read_shard(message, chain, messages, told)
            shards_crc32c = messages.crc32c(chain.to_bytes(4, "little"), shards_crc32c)
        elif body == "file_footer":
            break
        else:
            require(body is None, f"a {body} stands between the shards")
    footer = message.file_footer
    require(len(told["shards"]) == footer.shard_count == header.shard_count, "the file has not all of its shards")
    require(footer.file_bytes == messages.offset, "the file's footer has another length of the file")
    require(footer.shards_crc32c == shards_crc32c, "the file's footer has another checksum of the shards")
    for name in TOTALS:
        counted = sum(shard[name] for shard in told["shards"])
        require(getattr(footer.totals, name) == counted, f"the file's footer has another sum of {name}")


def text_of(value):
    """The text that a TLV value is, if it is one: type 1, its length as a varint, UTF-8."""
    if value[0] != 1:
        return None
    length, shift, at = 0, 0, 1
    while at < len(value) and shift < 64:
        length |= (value[at] & 0x7F) << shift
        shift += 7
        at += 1
        if value[at - 1] < 0x80:
            break
    if len(value) - at != length:
        return None
    try:
        return value[at:].decode()
    except UnicodeDecodeError:
        return None


def as_json(entry):
    line = {}
    try:
        line["key"] = entry["key"].decode()
    except UnicodeDecodeError:
        line["key_base64"] = base64.b64encode(entry["key"]).decode()
    text = text_of(entry["value"])
    if text is not None:
        line["value"] = text
    else:
        line["value_tlv_base64"] = base64.b64encode(entry["value"]).decode()
    if entry["expires_at_us"] is not None:
        line["expires_at_us"] = entry["expires_at_us"]
    line["version"] = entry["index"] << 16 | entry["position"]
    return json.dumps(line, ensure_ascii=False)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--entries", action="store_true", help="print each entry as a line of JSON")
    parser.add_argument("file", metavar="FILE")
    arguments = parser.parse_args()
    told = {}
    try:
        classes = generated_classes()
        with open(arguments.file, "rb") as file:
            for entry in read(file, classes, told):
                if arguments.entries:
                    print(as_json(entry))
    except NotWhole as error:
        print(f"{arguments.file}: {error}", file=sys.stderr)
        return 1
    except (Missing, OSError) as error:
        print(f"read_snapshot: {error}", file=sys.stderr)
        return 2
    if not arguments.entries:
        print(json.dumps(told, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
