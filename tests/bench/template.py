"""The template language of the peers' configurations: lines '% if X:', '% elif X:', '% else:',
'% for A in B:', '% end', and {{ X }} inside any other line. X is a Python expression."""
from __future__ import annotations

import re
from typing import Any


def render(text: str, names: dict[str, Any]) -> str:
    """Turns the template into a small Python program, and runs it."""
    program: list[str] = []
    depth = 0

    def emit(statement: str) -> None:
        program.append("    " * depth + statement)

    for line in text.splitlines(keepends=True):
        stripped = line.strip()
        if not stripped.startswith("% "):
            parts = re.split(r"\{\{(.*?)\}\}", line)
            emit("_out(%s)" % " + ".join(
                repr(part) if i % 2 == 0 else f"str({part.strip()})"
                for i, part in enumerate(parts)))
            continue
        statement = stripped[2:].strip()
        if statement == "end":
            depth -= 1
            continue
        if statement.startswith(("else", "elif")):
            depth -= 1
        emit(statement)
        depth += 1
        emit("pass")
    if depth:
        raise ValueError("a '% if' or '% for' has no '% end'")
    out: list[str] = []
    exec("\n".join(program), dict(names, _out=out.append))
    return "".join(out)
