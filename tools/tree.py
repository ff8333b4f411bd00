"""The project's own files, for tools/check-*: found by name, so that no repository is needed."""

import ast
import os
import pathlib
import re
import sys

TOP = pathlib.Path(__file__).resolve().parents[1]
FOLDERS = (".ci", "defs", "docs", "lab", "man", "src", "tests", "tools")


def files():
    """Every file of the project, as a path relative to TOP, in order."""
    found = [pathlib.Path(name) for name in os.listdir(TOP) if (TOP / name).is_file() and name != ".git"]
    for folder in FOLDERS:
        for where, folders, names in os.walk(TOP / folder):
            folders[:] = [name for name in folders if name != "__pycache__"]
            found += [pathlib.Path(where, name).relative_to(TOP) for name in names]
    return sorted(path for path in found if path.suffix != ".pyc")


def read(path):
    return (TOP / path).read_text(encoding="utf-8")


def language(path):
    """"c", "shell", "python", or None."""
    if path.suffix in (".c", ".h"):
        return "c"
    if path.suffix in (".py", ".sh"):
        return {".py": "python", ".sh": "shell"}[path.suffix]
    if path.suffix:
        return None
    with open(TOP / path, "rb") as file:
        first = file.readline(100)
    if not first.startswith(b"#!"):
        return None
    return "python" if b"python" in first else "shell" if re.search(rb"\b(ba|da)?sh\b", first) else None


def functions(path):
    """[(name, lines, parameters)] of a C, shell or Python file in the project's formatting."""
    text = read(path)
    if language(path) == "python":
        nodes = [n for n in ast.walk(ast.parse(text)) if isinstance(n, ast.FunctionDef)]
        return [(n.name, n.end_lineno - n.lineno, len(n.args.args)) for n in nodes]
    found, start = [], None
    lines = text.splitlines()
    for number, line in enumerate(lines):
        if line == "{":
            start = number
        elif line.startswith("}") and start is not None:
            found.append((*signature(lines, start), number - start - 1))
            start = None
    return [(name, length, parameters) for name, parameters, length in found]


def signature(lines, brace):
    """(name, number of parameters) of the function whose body begins at line `brace`."""
    first = brace
    while first > 0 and lines[first - 1] and lines[first - 1][0] not in "}#/*" \
            and not lines[first - 1].endswith(";"):
        first -= 1
    text = " ".join(lines[first:brace])
    match = re.search(r"(\w+)\s*\((.*)\)", text)
    if not match:
        return "?", 0
    depth, parameters = 0, 1
    for letter in match.group(2):
        depth += {"(": 1, ")": -1}.get(letter, 0)
        parameters += letter == "," and depth == 0
    return match.group(1), 0 if match.group(2).strip() in ("", "void") else parameters


def finish(problems, advice):
    """Ends a check: prints its problems; exit code 1 if there are any."""
    for problem in problems:
        print(problem)
    if problems:
        print(advice)
    sys.exit(1 if problems else 0)
