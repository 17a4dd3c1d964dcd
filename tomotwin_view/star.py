"""The one reader and writer of STAR files, for the plugin, the windows and the engine.

Scipion's own reader returns no row at all for a table that follows another block, and the usual ones take quotes out of
names or split them there: a silent loss of picks; hence this one, of the standard library alone. Values are kept as text:
who reads them knows their type.

A value stands between quotes where it would be taken for something else (blanks, ``data_...``, ``loop_``, a leading ``_``
or ``#``, quotes); a quote ends it only before a blank (Hall 1991, J. Chem. Inf. Comput. Sci. 31, 326, as CIF 1.1 has it).
Files of other programs are read line by line, as RELION writes them, which never quotes: so ``data_01  3 4 5`` is a row of
four values, and no block. Text that is no UTF-8 is taken for Latin-1.
"""

import os
import re
import tempfile
from contextlib import contextmanager
from typing import Any, Dict, Iterable, Iterator, List, Mapping, NamedTuple, Sequence, TextIO, Tuple, Union

Row = Dict[str, str]
Table = Tuple[Sequence[str], Iterable[Sequence[Any]]]

_RESERVED = ("data_", "loop_", "save_", "stop_", "global_")
_VALUES = re.compile(r"""'((?:[^']|'(?=\S))*)'(?=\s|$)|"((?:[^"]|"(?=\S))*)"(?=\s|$)|(\#.*)|(\S+)""")


class Block(NamedTuple):
    """One block: labels without ``_``, and rows of as many values; pairs of label and value are one row."""

    labels: List[str]
    rows: List[List[str]]
    is_loop: bool


def read_blocks(path: str) -> Dict[str, Block]:
    """All blocks of a file by name (``data_particles`` is "particles").

    Raises
    ------
    ValueError
        Where it is no text or has no block, where a block, a table or a label comes twice, or a row has not as many
        values as its loop has labels.
    """
    found: Dict[str, Block] = {}
    block = Block([], [], False)
    text = _text(path)
    line_ends = text.endswith("\n")
    for number, line in enumerate(text.split("\n"), start=1):
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        values = split_values(line)
        if not values:
            continue
        if len(values) == 1 and line.startswith("data_"):
            name = values[0][len("data_") :]
            if name in found and name:
                raise ValueError(f"{path}, line {number}: the block data_{name} is there twice.")
            block = Block([], [], False)
            found[name if name not in found else f"#{len(found) + 1}"] = block
        elif not found:
            raise ValueError(f"{path}, line {number}: not a STAR file, which begins with data_...")
        elif len(values) == 1 and line == "loop_":
            if block.is_loop:
                raise ValueError(f"{path}, line {number}: a second table in one block.")
            block = Block([], [], True)
            found[list(found)[-1]] = block
        elif line.startswith("_") and _is_label(values, block):
            label = values[0][1:]
            if label in block.labels or (block.is_loop and block.rows):
                raise ValueError(f"{path}, line {number}: the column _{label} is there twice, or after the first row.")
            block.labels.append(label)
            if not block.is_loop:
                block.rows[:] = [[*(block.rows[0] if block.rows else []), values[1]]]
        elif not block.is_loop:
            raise ValueError(f"{path}, line {number}: neither a label with its value nor a row of a loop.")
        elif len(values) != len(block.labels):
            raise ValueError(f"{path}, line {number}: {len(values)} values for {len(block.labels)} columns.")
        else:
            block.rows.append(values)
    if not found:
        raise ValueError(f"{path} has no block data_...")
    if "tomotwin" in found and not line_ends:
        raise ValueError(f"{path} is cut off in its last line.")
    return found


def read_table(path: str, block: str) -> List[Row]:
    """Rows of the loop in ``data_<block>``, each a dictionary from label (without ``_``) to text.

    Raises
    ------
    ValueError
        As `read_blocks`, or if the file has no such block.
    """
    blocks = read_blocks(path)
    if block not in blocks:
        raise ValueError(f"{path} has no block data_{block}.")
    labels, rows, _ = blocks[block]
    return [dict(zip(labels, values)) for values in rows]


def read_pairs(path: str, block: str) -> Row:
    """Label-value pairs of a block without a loop; an empty dictionary when the file has no such block."""
    try:
        found = read_blocks(path).get(block)
    except ValueError:
        return {}
    return dict(zip(found.labels, found.rows[0])) if found and not found.is_loop and found.rows else {}


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
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            yield file
        os.chmod(temporary, 0o644)  # mkstemp's files are private
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def split_values(line: str) -> List[str]:
    """The values of a line, without quotes about them and without a comment."""
    if "'" not in line and '"' not in line and "#" not in line:
        return line.split()
    found = []
    for one in _VALUES.finditer(line):
        single, double, comment, plain = one.groups()
        if comment is not None:
            break
        found.append(next(value for value in (single, double, plain) if value is not None))
    return found


def word(text: str) -> str:
    """A text as one STAR value, from which `split_values` gets the very text again.

    Raises
    ------
    ValueError
        For a text of several lines, or with both kinds of quotes before blanks: no STAR value can hold it.
    """
    if "\n" in text or "\r" in text:
        raise ValueError(f"{text!r} has several lines, for which a STAR value has no place.")
    reserved = text.lower().startswith(_RESERVED) or text.startswith(("_", "#", "$", ";", "[", "]"))
    if text and not reserved and "'" not in text and '"' not in text and not any(one.isspace() for one in text):
        return text
    for quote in '"', "'":
        # The kind of quote that is not in it, as readers that know no better want it; else one that nothing follows.
        if quote not in text:
            return f"{quote}{text}{quote}"
    for quote in '"', "'":
        if not re.search(quote + r"\s", text):
            return f"{quote}{text}{quote}"
    raise ValueError(f"{text!r} has both kinds of quotes before blanks, for which a STAR value has no place.")


def _word(value: Any) -> str:
    """A value as one STAR word; positions keep a hundredth of a thousandth of a voxel."""
    return word(f"{value:.5f}" if isinstance(value, float) else str(value))


def _is_label(values: List[str], block: Block) -> bool:
    """Whether a line that begins with _ is a label (of a pair, of a loop, perhaps with its number), and no row."""
    if not block.is_loop:
        return len(values) == 2
    return len(values) == 1 or (not block.rows and values[1:] == [str(len(block.labels) + 1)])


def _text(path: str) -> str:
    with open(path, "rb") as file:
        content = file.read()
    if b"\0" in content:
        raise ValueError(f"{path} is no text.")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        return content.decode("latin-1")
