"""Reference page of the `darkroom` command, from its parser."""

from __future__ import annotations

import argparse
from collections.abc import Iterator

from cli.main import build_parser
from docs.site.markdown import table


def command_line_page() -> str:
    """Return the page of all commands and their options."""
    lines = ["# The `darkroom` command", "", "[The command line](../cli.md) says how they work together.", ""]
    for parser, help_text in _commands(build_parser(), ""):
        lines += [f"## {parser.prog}", ""]
        if help_text:
            lines += [help_text[0].upper() + help_text[1:] + ".", ""]
        rows = [row for action in parser._actions if (row := _row(parser, action)) is not None]
        if rows:
            lines += [table(["argument", "meaning"], rows)]
    return "\n".join(lines)


def _commands(parser: argparse.ArgumentParser, help_text: str) -> Iterator[tuple[argparse.ArgumentParser, str]]:
    """The parser and those of its subcommands, each with what its command does."""
    yield parser, help_text
    for action in parser._actions:  # argparse has no public way to its commands
        if isinstance(action, argparse._SubParsersAction):
            texts = {choice.dest: choice.help or "" for choice in action._choices_actions}
            for name, command in action.choices.items():
                yield from _commands(command, texts.get(name, ""))


def _row(parser: argparse.ArgumentParser, action: argparse.Action) -> list[str] | None:
    """An option's cells; None for commands and `--help`."""
    if isinstance(action, argparse._SubParsersAction | argparse._HelpAction):
        return None
    formatter = argparse.HelpFormatter(parser.prog)
    name = formatter._format_action_invocation(action)
    return [f"`{name}`", formatter._expand_help(action) if action.help else ""]
