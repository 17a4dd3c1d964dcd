"""The tables of the protocols' pages, out of the forms themselves: `make docs`.

    python docs/forms.py [--check]

In each page of docs/protocols what stands between the two marks is replaced by the parameters of that protocol's form,
with their defaults and the help that Scipion shows; the rest of a page is written by hand. With --check nothing is
written, and pages that would change are named.
"""

import argparse
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

PAGES = Path(__file__).parent / "protocols"
PACKAGE = "tomotwin_scipion"
BEGINS, ENDS = "<!-- the form begins -->", "<!-- the form ends -->"
RUN_SECTIONS = ("General", "Parallelization")


def main() -> int:
    """Parse the command line and bring the pages up to date."""
    parser = argparse.ArgumentParser(prog="python docs/forms.py", description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing, name the pages that would change")
    options = parser.parse_args()
    prepare_scipion()
    stale = []
    for name, protocol in plugin_protocols().items():
        page = PAGES / f"{name}.md"
        text = page.read_text()
        new = with_table(text, table(protocol))
        if new != text:
            stale.append(page.name)
            if not options.check:
                page.write_text(new)
    print(f"{'out of date' if options.check else 'written'}: {', '.join(stale) or 'none'}")
    return 1 if stale and options.check else 0


def prepare_scipion() -> None:
    """A folder for what Scipion wants to write when it is imported, unless one is named already."""
    home = os.environ.setdefault("SCIPION_HOME", tempfile.mkdtemp(prefix="scipion_docs_"))
    os.environ.setdefault("SCIPION_USER_DATA", os.path.join(home, "data"))
    os.environ.setdefault("SCIPION_DOMAIN", "pwem")


def plugin_protocols() -> dict[str, Any]:
    """A new protocol of each kind of the plugin, by the name of its page: reference_picking."""
    from pwem import Domain

    classes = [value for value in Domain.getProtocols().values() if value.__module__.startswith(PACKAGE + ".")]
    return {value._label.replace(" ", "_"): value() for value in classes if value._label}


def with_table(text: str, new: str) -> str:
    """A page with what stands between its marks replaced; ValueError where it has not both of them."""
    before, begins, rest = text.partition(BEGINS)
    _, ends, after = rest.partition(ENDS)
    if not (begins and ends):
        raise ValueError(f"a page needs the marks {BEGINS} and {ENDS}")
    return f"{before}{BEGINS}\n{new}{ENDS}{after}"


def table(protocol: Any) -> str:
    """The form as Markdown: a table for each page of it, parameters for experts in italics."""
    from pyworkflow.protocol import LEVEL_NORMAL

    lines = []
    for section in protocol.iterDefinitionSections():
        if section.getLabel() in RUN_SECTIONS:
            continue
        lines += ["", f"### {section.getLabel()}", "", "| parameter | default | |", "|---|---|---|"]
        for param in shown(section):
            label = plain(param.getLabel())
            told = f"**{label}**" if param.expertLevel.get() == LEVEL_NORMAL else f"*{label}* (expert)"
            lines.append(f"| {told} | {default_of(param)} | {plain(param.getHelp())} |")
    return "\n".join([*lines, "", ""])


def shown(section: Any) -> Iterator[Any]:
    """The parameters of a page that a user sees; those of a line stand for themselves under the line's help."""
    from pyworkflow.protocol import params

    for _, param in section.iterParams():
        if isinstance(param, params.HiddenBooleanParam) or param.getLabel() in ("", None):
            continue
        if not isinstance(param, params.LabelParam):
            yield param


def default_of(param: Any) -> str:
    """What stands in a new form; of a choice all that can be chosen, the default first and bold."""
    from pyworkflow.protocol import params

    if isinstance(param, params.Line):
        values = [f"{plain(one.getLabel())} {value_of(one)}".strip() for _, one in param.iterParams()]
        return ", ".join(values)
    if isinstance(param, params.EnumParam):
        chosen = int(param.default.get() or 0)
        return ", ".join(f"**{name}**" if number == chosen else name for number, name in enumerate(param.choices))
    return value_of(param)


def value_of(param: Any) -> str:
    """A default as the form shows it."""
    from pyworkflow.protocol import params

    value = param.default.get()
    if isinstance(param, params.BooleanParam):
        return "Yes" if str(value) == "True" else "No"
    return "" if value is None else plain(str(value))


def plain(text: Any) -> str:
    """A text of Scipion as a cell of a Markdown table."""
    return str(text or "").strip().replace("|", "\\|").replace("\n- ", "<br>- ").replace("\n", "<br>")


if __name__ == "__main__":
    sys.exit(main())
