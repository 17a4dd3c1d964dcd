"""What is doubtful about an input, told in one sentence on standard error; what cannot be is a `UserError` instead.

A remark says what was found, what it was taken for, and how to say otherwise. Each is made once in a process, however many
times the input is looked at.
"""

import sys

_made: set[str] = set()


def remark(sentence: str) -> None:
    """Tell the user; the work goes on."""
    if sentence in _made:
        return
    _made.add(sentence)
    print(f"tomotwin: note: {sentence}", file=sys.stderr, flush=True)
