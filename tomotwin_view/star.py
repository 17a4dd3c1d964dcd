"""The little of the STAR format that plugin and engine exchange: blocks of pairs and one-line loops.

Scipion's own reader returns no row at all for a table that follows another block, which would be a
silent loss of picks; hence this one. Values are kept as text: who reads them knows their type.
"""

import os
import shlex
import tempfile
from contextlib import contextmanager
from typing import Any, Dict, Iterable, Iterator, List, Mapping, Sequence, TextIO, Tuple, Union

Row = Dict[str, str]
Table = Tuple[Sequence[str], Iterable[Sequence[Any]]]


def read_table(path: str, block: str) -> List[Row]:
    """Rows of the loop in ``data_<block>``, each a dictionary from label (without ``_``) to text.

    Raises
    ------
    ValueError
        If the file has no such block, or a row has not as many values as the loop has labels.
    """
    labels: List[str] = []
    rows: List[Row] = []
    for number, line in _lines_of_block(path, block):
        if line == "loop_":
            continue
        if line.startswith("_"):
            labels.append(line.split()[0][1:])
            continue
        values = _split(line)
        if len(values) != len(labels):
            raise ValueError(f"{path}, line {number}: {len(values)} values for {len(labels)} columns.")
        rows.append(dict(zip(labels, values)))
    return rows


def read_pairs(path: str, block: str) -> Row:
    """Label-value pairs of a block without a loop; an empty dictionary when the file has no such block."""
    pairs = {}
    try:
        for _, line in _lines_of_block(path, block):
            words = _split(line)
            if len(words) > 1 and words[0].startswith("_"):
                pairs[words[0][1:]] = words[1]
    except ValueError:
        return {}
    return pairs


def write_tables(path: str, tables: Mapping[str, Union[Table, Row]]) -> None:
    """Write blocks: loops as (labels, rows), label-value pairs as dictionaries.

    It is written to a temporary name first, so that no half file is ever found.
    """
    with replacing(path) as file:
        for block, content in tables.items():
            file.write(f"\ndata_{block}\n\n")
            if isinstance(content, dict):
                file.write("".join(f"_{label} {_word(value)}\n" for label, value in content.items()))
                continue
            labels, rows = content
            file.write("loop_\n")
            for number, label in enumerate(labels, start=1):
                file.write(f"_{label} #{number}\n")
            for row in rows:
                file.write("  ".join(_word(value) for value in row) + "\n")
            file.write("\n")


@contextmanager
def replacing(path: str) -> Iterator[TextIO]:
    """A text file to write, which takes the place of `path` only once it is complete."""
    folder = os.path.dirname(os.path.abspath(path))
    handle, temporary = tempfile.mkstemp(dir=folder, prefix=".", suffix=os.path.splitext(path)[1])
    try:
        with os.fdopen(handle, "w") as file:
            yield file
        os.chmod(temporary, 0o644)  # mkstemp's files are private
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def _lines_of_block(path: str, block: str) -> Iterator[Tuple[int, str]]:
    """Numbered lines of one block, without comments and empty lines."""
    found = False
    with open(path) as file:
        for number, line in enumerate(file, start=1):
            line = line.strip()
            if line.startswith("data_"):
                if found:
                    return
                found = line == "data_" + block
            elif found and line and not line.startswith("#"):
                yield number, line
    if not found:
        raise ValueError(f"{path} has no block data_{block}.")


def _split(line: str) -> List[str]:
    return shlex.split(line) if "'" in line or '"' in line else line.split()


def _word(value: Any) -> str:
    """A value as one STAR word; positions keep a hundredth of a thousandth of a voxel."""
    text = f"{value:.5f}" if isinstance(value, float) else str(value)
    if text and not set(text) & set(" \t'\"#"):
        return text
    return f"'{text}'" if '"' in text and "'" not in text else '"' + text.replace('"', "'") + '"'
