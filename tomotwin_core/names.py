"""Names that come out of files: of tomograms, targets and clusters. A name is a name, never a path.

Results are called after them (`NAME_peaks.star`, `NAME.zarr`), so a name with a slash in it would write elsewhere than in
the folder that was given, and one that is no text could not be written at all. Whoever reads a name asks here, once.
"""

from __future__ import annotations

from tomotwin_core.errors import UserError

# File systems take 255 bytes; what is put before and behind a name (`.part-0a1b2c3d-`, `_peaks.star`) takes its share.
LONGEST_BYTES = 200


def fault_of(name: object) -> str:
    """What is wrong with a name, in words to follow it; "" where nothing is."""
    if not isinstance(name, str) or not name.strip():
        return "is no name"
    if "/" in name or name in (".", ".."):
        return "is a path, not a name"
    if any(ord(c) < 32 or ord(c) == 127 for c in name):
        return "has control characters in it"
    try:
        size = len(name.encode("utf-8"))
    except UnicodeEncodeError:
        return "has bytes in it that are no text (UTF-8)"
    if size > LONGEST_BYTES:
        return f"is longer than {LONGEST_BYTES} bytes"
    return ""


def require_name(name: object, where: object, what: str = "the tomogram's name", blank: bool = False) -> str:
    """The name, if it can be one; a `UserError` that says where it stands if it cannot.  blank : none at all will do too."""
    fault = "" if blank and isinstance(name, str) and not name.strip(" ") else fault_of(name)
    if fault:
        shown = ascii(name) if len(str(name)) < 80 else ascii(str(name)[:60]) + "..."
        raise UserError(f"{ascii_path(where)}: {what} {shown} {fault}; change it there")
    return str(name)


def ascii_path(path: object) -> str:
    """A path for a sentence; bytes that are no text are shown by their numbers."""
    text = str(path)
    return text.encode("utf-8", "backslashreplace").decode()
