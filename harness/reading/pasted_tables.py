"""Tables as they are pasted into a text: Markdown, what databases print, and columns that blanks align."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from harness.reading.recorded import unreadable


def is_rule(line: str) -> bool:
    """Return whether a line is drawn, as `|---|:-:|`, `----+----` or `====  ====`."""
    drawn = "--" in line or "==" in line or {*"-|"} <= {*line}
    return drawn and {*line} <= {*"-=:|+ \t\r\n"}


def has_bare_rule(lines: Iterable[str]) -> bool | None:
    """Return whether a table with `|` begins its rule without one, as `--- | ---`; None where there is no such rule."""
    rules = [one.strip() for one in lines if is_rule(one) and not {*one}.isdisjoint("|+")]
    return any(one[0] not in "|+" for one in rules) if rules else None


def piped(path: Path, text: Iterable[str], bare: bool) -> list[tuple[int, list[str]]]:
    """Return the number and the cells of each row of a table with `|` between cells; `bare`: and none before a row.

    Raises `UnreadableError` for a second table.
    """
    found: list[tuple[int, list[str]]] = []
    last = 0
    for number, line in enumerate(text, 1):
        row = line.strip()
        rule = is_rule(row) and not {*row}.isdisjoint("|+")
        if not (rule or ("|" in row if bare else row.startswith("|"))):
            continue
        if last not in (0, number - 1):
            raise unreadable(path, f"has a second table in line {number}; leave one in the file")
        last = number
        if not rule:
            cells = re.split(r"(?<!\\)\|", row if bare else row[1:])
            cells = cells[:-1] if row.endswith("|") and not bare else cells
            found.append((number, [_unmarked(cell) for cell in cells]))
    return found


def _unmarked(cell: str) -> str:
    """Return a Markdown cell without its marks: `**76.1**`, `_76.1_` and `` `76.1` `` are 76.1."""
    plain = re.sub(r"\*\*|`|\\(?=\|)", "", cell).strip()
    return re.sub(r"^(\*|__?)(.+)\1$", r"\2", plain)


def is_aligned(lines: Iterable[str]) -> bool:
    """Return whether two or more blanks, and no other separators, are between the names of the first line."""
    first = next((one.strip() for one in lines if one.strip() and not is_rule(one)), "")
    return "  " in first and {*first}.isdisjoint("\t;,|")


def aligned(text: Iterable[str]) -> list[tuple[int, list[str]]]:
    """Return the number and the cells of each line of text that blanks align, as pandas prints it; its index has no name.

    Two or more blanks separate cells. One does where all lines have as many words as there are names.
    """
    lines = [(at, one.rstrip()) for at, one in enumerate(text, 1) if one.strip() and not is_rule(one)]  # fmt: skip
    (_, names), *rows = cut = [(at, re.split(r"\s{2,}", line.strip())) for at, line in lines]
    ends = [_indent(line) + len(row[0]) for (_, line), (_, row) in zip(lines, cut, strict=True)]
    if max(ends[1:], default=len(lines[0][1])) <= _indent(lines[0][1]):
        names.insert(0, "")
    elif any(len(row) != len(names) for _, row in rows):
        words = [(at, line.split()) for at, line in lines]
        return words if {len(row) for _, row in words} == {len(names)} else cut
    return cut


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())
