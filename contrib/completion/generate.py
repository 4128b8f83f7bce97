#!/usr/bin/env python3
"""Writes the completions for bash, zsh and fish beside this file, from the parsers themselves. A test compares them."""
from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent.parent))

from s3cfs.cli import commands

HEAD = "made by contrib/completion/generate.py"


def described(name: str) -> Iterator[tuple[str, str, bool, list[str]]]:
    """(option or word, help, takes a value, choices) of a command, without what --help hides."""
    for action in commands.command(name).parser(f"s3cfs {name}")._actions:
        if isinstance(action, argparse._SubParsersAction):
            for choice in action.choices:
                yield choice, "", False, []
        elif action.option_strings and action.help != argparse.SUPPRESS:
            text = (action.help or "").partition(" (default")[0]
            yield max(action.option_strings, key=len), text, action.nargs != 0, [str(c) for c in action.choices or ()]


def bash() -> str:
    cases = "\n".join(f'        {name}) words="{" ".join(word for word, *_ in described(name))}" ;;' for name in commands.COMMANDS)
    return f"""# bash completion of s3cfs; {HEAD}
_s3cfs() {{
    local cur=${{COMP_WORDS[COMP_CWORD]}} words
    if [ "$COMP_CWORD" -eq 1 ]; then
        mapfile -t COMPREPLY < <(compgen -W "{" ".join(commands.COMMANDS)}" -- "$cur")
        return
    fi
    case ${{COMP_WORDS[1]}} in
{cases}
        *) words= ;;
    esac
    if [ "${{COMP_WORDS[1]}}" = help ]; then words="{" ".join(commands.COMMANDS)}"; fi
    mapfile -t COMPREPLY < <(compgen -W "$words" -- "$cur"; compgen -d -- "$cur")
}}
complete -o filenames -F _s3cfs s3cfs
"""


def zsh() -> str:
    names = " ".join(f"'{name}:{_quoted(text)}'" for name, text in commands.COMMANDS.items())
    cases = []
    for name in commands.COMMANDS:
        words = [f"'{word}[{_quoted(text)}]{':value:_files' if value else ''}'"
                 for word, text, value, _ in described(name) if word[0] == "-"]
        actions = [word for word, *_ in described(name) if word[0] != "-"]
        first = f"'1:action:({' '.join(actions)})' " if actions else ""
        cases.append(f"    {name}) _arguments {first}{' '.join(words)} '*:folder:_files -/' ;;")
    return f"""#compdef s3cfs
# {HEAD}
local -a commands
commands=({names})
if (( CURRENT == 2 )); then
  _describe command commands
  return
fi
shift words
(( CURRENT-- ))
case $words[1] in
{chr(10).join(cases)}
esac
"""


def fish() -> str:
    lines = [f"# fish completion of s3cfs; {HEAD}", "complete -c s3cfs -n __fish_use_subcommand -f"]
    for name, text in commands.COMMANDS.items():
        lines.append(f"complete -c s3cfs -n __fish_use_subcommand -f -a {name} -d '{_quoted(text)}'")
        for word, help_text, value, choices in described(name):
            given = f"complete -c s3cfs -n '__fish_seen_subcommand_from {name}'"
            if word.startswith("--"):
                lines.append(f"{given} -l {word[2:]}{' -r' if value else ''}{_fish_choices(choices)} -d '{_quoted(help_text)}'")
            elif not word.startswith("-"):
                lines.append(f"{given} -a {word}")
    return "\n".join(lines) + "\n"


def _fish_choices(choices: list[str]) -> str:
    return f" -f -a '{' '.join(choices)}'" if choices else ""


def _quoted(text: str) -> str:
    return "".join(c for c in text if c not in "'[]:\\")


FILES = {"s3cfs.bash": bash, "_s3cfs": zsh, "s3cfs.fish": fish}

if __name__ == "__main__":
    for file, make in FILES.items():
        (Path(__file__).parent / file).write_text(make())
