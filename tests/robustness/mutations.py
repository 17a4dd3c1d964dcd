"""Good files made bad, as disks, copies, editors and other programs do it. The same seed gives the same file."""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

Rng = np.random.Generator
HOSTILE_WORDS = (
    "nan", "inf", "-inf", "-1", "0", "1e300", "-1e300", "1e-300", "99999999999999999999", "2147483648", "0x10", "abc", '""', "''",
    "../../victim", "/tmp/victim", "..", "a b", "'", '"', "ünïcode", "_rlnTomoName", "data_", "loop_", "#", "<NA>", "None", "true", "1,5",
)  # fmt: skip
HOSTILE_VALUES: tuple[Any, ...] = (
    None, True, -1, 0, 1e300, -1e300, float("nan"), float("inf"), 2**70, "", "abc", "../../victim", "a\nb", "a\0b", [], [[]], {}, [None],
    [1, 2], [1e300] * 3, "x" * 5000, "\udcff", {"a": 1},
)  # fmt: skip


def bytes_mutated(content: bytes, rng: Rng) -> bytes:
    """Something done to bytes that know no format."""
    data = bytearray(content)
    kind = int(rng.integers(9))
    if not data:
        return bytes(rng.integers(0, 256, int(rng.integers(1, 50)), dtype=np.uint8))
    at = int(rng.integers(len(data)))
    end = min(at + int(rng.integers(1, 64)), len(data))
    if kind == 0:
        return bytes(data[:at])
    if kind == 1:
        data[at] ^= 1 << int(rng.integers(8))
    elif kind == 2:
        for place in rng.integers(0, len(data), 20):
            data[place] = int(rng.integers(256))
    elif kind == 3:
        data[at:end] = bytes(end - at)
    elif kind == 4:
        del data[at:end]
    elif kind == 5:
        data[at:at] = data[at:end]
    elif kind == 6:  # where lengths and counts stand in headers
        at = 4 * int(rng.integers(min(len(data), 1024) // 4 + 1))
        data[at : at + 4] = struct.pack("<i", int(rng.choice([-1, 0, 1, 2**31 - 1, -(2**31), 65536])))
    elif kind == 7:
        data += bytes(rng.integers(0, 256, int(rng.integers(1, 200)), dtype=np.uint8))
    else:
        at = 4 * int(rng.integers(min(len(data), 1024) // 4 + 1))
        data[at : at + 4] = struct.pack("<f", float(rng.choice([np.nan, np.inf, -1.0, 0.0, 3e38, 1e-38])))
    return bytes(data)


def text_mutated(content: bytes, rng: Rng) -> bytes:
    """Something done to words and lines."""
    lines = content.split(b"\n")
    kind, at = int(rng.integers(9)), int(rng.integers(len(lines)))
    if kind < 4:
        words = [m.span() for m in re.finditer(rb"[^\s,=\[\]{}]+", content)]
        if not words:
            return b"x"
        low, high = words[int(rng.integers(len(words)))]
        return content[:low] + str(rng.choice(HOSTILE_WORDS)).encode() + content[high:]
    if kind == 4:
        del lines[at]
    elif kind == 5:
        lines.insert(at, lines[int(rng.integers(len(lines)))])
    elif kind == 6:
        lines[at] = lines[at][: len(lines[at]) // 2]
    elif kind == 7:
        lines[at] += b" \xfc\xe9 " + bytes(rng.integers(128, 256, 3, dtype=np.uint8))
    else:
        return bytes_mutated(content, rng)
    return b"\n".join(lines)


def value_mutated(content: Any, rng: Rng) -> Any:
    """JSON of which one value is another, missing, or there once more."""
    places: list[tuple[Any, Any]] = []

    def walk(node: Any) -> None:
        for key in node if isinstance(node, dict) else range(len(node)):
            places.append((node, key))
            if isinstance(node[key], dict | list):
                walk(node[key])

    content = json.loads(json.dumps(content))
    walk(content)
    if not places or rng.random() < 0.03:
        return HOSTILE_VALUES[int(rng.integers(len(HOSTILE_VALUES)))]
    node, key = places[int(rng.integers(len(places)))]
    if rng.random() < 0.2:
        node.pop(key)
    elif isinstance(node, list) and rng.random() < 0.2:
        node.append(node[key])
    else:
        node[key] = HOSTILE_VALUES[int(rng.integers(len(HOSTILE_VALUES)))]
    return content


def json_mutated(content: bytes, rng: Rng) -> bytes:
    """As JSON three times of four, else as text; now and then nested beyond all measure."""
    chance = rng.random()
    if chance < 0.02:
        return b"[" * 100_000
    if chance < 0.25:
        return text_mutated(content, rng)
    return json.dumps(value_mutated(json.loads(content), rng)).encode("utf-8", "surrogatepass")


def safetensors_mutated(content: bytes, rng: Rng) -> bytes:
    """In its bytes, in its description of tensors, or in the JSON that its metadata hold."""
    chance = rng.random()
    if chance < 0.3:
        return bytes_mutated(content, rng)
    (size,) = struct.unpack("<Q", content[:8])
    header, data = json.loads(content[8 : 8 + size]), content[8 + size :]
    if chance < 0.45:
        header = value_mutated(header, rng)
    elif chance < 0.6:
        names = [name for name in header if name != "__metadata__"]
        if chance < 0.5:
            del header[names[int(rng.integers(len(names)))]]
        else:
            one = header[names[int(rng.integers(len(names)))]]
            one["shape"] = one["shape"][::-1] if rng.random() < 0.5 else [1, *one["shape"]]
    elif chance < 0.7:
        # Values that are no numbers in the place of what there is.
        values = bytearray(data)
        at = 4 * int(rng.integers(max(len(values) // 4, 1)))
        values[at : at + 4] = struct.pack("<f", float(rng.choice([np.nan, np.inf, 3e38])))
        data = bytes(values)
    else:
        entries = header["__metadata__"]
        name = str(rng.choice(sorted(entries)))
        entries[name] = json.dumps(value_mutated(json.loads(entries[name]), rng))
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def folder_mutated(folder: Path, rng: Rng, how: Callable[[bytes, Rng], bytes]) -> None:
    """One file of a folder changed or removed."""
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    described = [p for p in files if p.suffix in (".json", ".safetensors", ".star")]
    one = files[int(rng.integers(len(files)))] if rng.random() < 0.4 else described[int(rng.integers(len(described)))]
    if rng.random() < 0.15:
        one.unlink()
    else:
        one.write_bytes((how if one in described else bytes_mutated)(one.read_bytes(), rng))


def file_in_folder_mutated(content: bytes, rng: Rng) -> bytes:
    """By what the file is, told by its first byte."""
    if content[:1] == b"{":
        return json_mutated(content, rng)
    return safetensors_mutated(content, rng) if content[8:9] == b"{" else text_mutated(content, rng)
