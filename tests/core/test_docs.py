"""The manual: its links lead somewhere, and its commands are those that the program has."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

import pytest

from tomotwin_core.cli.main import COMMANDS, build_parser

ROOT = Path(__file__).parents[2]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md"), ROOT / "benchmarks" / "README.md"])
LINK = re.compile(r"\]\((?!https?:)([^)#\s]*)(?:#([^)\s]+))?\)")


def anchor(heading: str) -> str:
    """A heading as the address that GitHub makes of it."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_to_a_file_and_to_a_heading_in_it(page: Path) -> None:
    for path, heading in LINK.findall(page.read_text()):
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"no {path}"
        if heading:
            headings = re.findall(r"^#+ (.*)$", target.read_text(), re.MULTILINE)
            assert heading in {anchor(one) for one in headings}, f"no {path}#{heading}"


def options_of(parser: argparse.ArgumentParser) -> set[str]:
    """The options of a parser and of those under it."""
    options = set(parser._option_string_actions)
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            options.update(*(options_of(one) for one in action.choices.values()))
    return options


def parser_of(command: str) -> argparse.ArgumentParser:
    """The parser of a command."""
    return next(a for a in build_parser()._actions if isinstance(a, argparse._SubParsersAction)).choices[command]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_command_in_the_text_is_one_that_the_program_has_with_these_options(page: Path) -> None:
    text = re.sub(r"\\\n\s*", " ", page.read_text())
    calls = re.findall(r"(?:^ {4}|^|`)tomotwin ([a-z]+)\b([^`\n#|]*)", text, re.MULTILINE)
    for command, rest in calls:
        assert command in COMMANDS, f"tomotwin {command}"
        unknown = set(re.findall(r"(?<=\s)--[a-z][a-z-]*", rest)) - options_of(parser_of(command))
        assert not unknown, f"tomotwin {command} has no {', '.join(sorted(unknown))}"


def test_every_page_of_the_manual_is_reached_from_its_first() -> None:
    reached, todo = set(), [ROOT / "README.md"]
    while todo:
        page = todo.pop()
        if page in reached or page.suffix != ".md":
            continue
        reached.add(page)
        todo += [(page.parent / path).resolve() for path, _ in LINK.findall(page.read_text()) if path]
    assert set(PAGES) <= reached
