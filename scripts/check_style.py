"""Holds the code to the style guide's numbers (CONTRIBUTING.md). Prints a table; exits 1 where a number is missed."""

from __future__ import annotations

import ast
import statistics
import sys
from dataclasses import dataclass, field
from pathlib import Path

PACKAGES = ("athena", "neurons", "task_server")
TOP_LEVEL = {"athena", "docs", "neurons", "scripts", "task_server", "tests"}


@dataclass
class Counts:
    """What was counted over one set of files."""

    lines: int = 0
    module_lines: list[tuple[int, Path]] = field(default_factory=list)
    functions: int = 0
    long_functions: list[str] = field(default_factory=list)
    raises: int = 0
    swallowed: int = 0
    broad: list[str] = field(default_factory=list)
    tests: int = 0
    mocks: int = 0
    busy_inits: list[Path] = field(default_factory=list)


def count(paths: list[Path]) -> Counts:
    total = Counts()
    for path in paths:
        source = path.read_text("utf-8")
        tree = ast.parse(source)
        size = sum(1 for line in source.splitlines() if line.strip())
        total.lines += size
        if path.name == "__init__.py":
            if any(isinstance(node, ast.Import | ast.ImportFrom) for node in tree.body):
                total.busy_inits.append(path)
        else:
            total.module_lines.append((len(source.splitlines()), path))
        for node in ast.walk(tree):
            count_node(total, node, path)
    return total


def count_node(total: Counts, node: ast.AST, path: Path) -> None:
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        total.functions += 1
        total.tests += node.name.startswith("test_")
        length = (node.end_lineno or node.lineno) - node.lineno + 1
        if length > 60:
            total.long_functions.append(f"{path}:{node.lineno} {node.name} ({length} lines)")
    elif isinstance(node, ast.Raise):
        total.raises += 1
    elif isinstance(node, ast.ExceptHandler) and not any(isinstance(n, ast.Raise) for n in ast.walk(node)):
        names = {n.id for n in ast.walk(node.type) if isinstance(n, ast.Name)} if node.type else {"Exception"}
        if names & {"Exception", "BaseException"}:
            total.broad.append(f"{path}:{node.lineno}")
        total.swallowed += all(isinstance(statement, ast.Pass | ast.Continue) for statement in node.body)
    elif isinstance(node, ast.Name | ast.Attribute):
        name = node.id if isinstance(node, ast.Name) else node.attr
        total.mocks += name in {"Mock", "MagicMock", "AsyncMock", "patch"}


def main() -> int:
    code = count(sorted(path for package in PACKAGES for path in Path(package).rglob("*.py")))
    tests = count(sorted(Path("tests").rglob("*.py")))
    sizes = [size for size, _ in code.module_lines]
    largest, largest_path = max(code.module_lines)
    strangers = {p.name for p in Path().iterdir() if p.is_dir() and (p / "__init__.py").exists()} - TOP_LEVEL
    rows = [
        ("broad except without re-raise per 1,000 lines", 1000 * len(code.broad) / max(1, code.lines), "<=", 0.5),
        ("raise statements per swallowed error", code.raises / max(1, code.swallowed), ">=", 10),
        ("functions over 60 lines, %", 100 * len(code.long_functions) / max(1, code.functions), "<=", 3),
        ("mocks per test", tests.mocks / max(1, tests.tests), "<=", 0.1),
        ("median module, lines", statistics.median(sizes), "<=", 150),
        (f"largest module, lines ({largest_path})", largest, "<=", 400),
        ("packages whose __init__ imports", len(code.busy_inits), "<=", 0),
        ("top-level packages beside the fixed ones", len(strangers), "<=", 0),
    ]
    missed = 0
    for name, value, sign, bound in rows:
        held = value <= bound if sign == "<=" else value >= bound
        missed += not held
        print(f"{'ok  ' if held else 'MISS'} {value:8.2f} {sign} {bound:<5} {name}")
    if missed:
        print(*code.broad, *code.long_functions, *code.busy_inits, *sorted(strangers), sep="\n")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
