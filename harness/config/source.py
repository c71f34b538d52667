"""The source of a module of the user's: its file and those beside it that it imports."""

from __future__ import annotations

import ast
import hashlib
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_OURS = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Source:
    """The files of a module, by their paths below `root`, with their content when it was imported."""

    path: Path
    root: Path
    files: dict[str, bytes]

    @property
    def sha256(self) -> str:
        """Return a hash of names and contents, whatever folder they are in."""
        whole = hashlib.sha256()
        for name, content in sorted(self.files.items()):
            whole.update(f"{name}\0{len(content)}\0".encode() + content)
        return whole.hexdigest()


def source_of(module: str) -> Source:
    """Return the source of a module that is being imported.

    Imports count wherever they stand in the code, a function too, of modules in the module's own folder and
    below it; those by `importlib` do not.
    """
    path = Path(sys.modules[module].__file__ or "").resolve()
    package = path.name == "__init__.py"
    root = path.parents[module.count(".") + package]
    files: dict[str, bytes] = {}
    _collect(root, path, files)
    return Source(path, root, files)


def _collect(root: Path, path: Path, files: dict[str, bytes]) -> None:
    name = path.relative_to(root).as_posix()
    if name in files or path.is_relative_to(_OURS):
        return
    files[name] = path.read_bytes()
    for imported in _imports(ast.parse(files[name]), path.relative_to(root).parent.parts):
        for depth in range(1, len(imported) + 1):
            base = root.joinpath(*imported[:depth])
            for candidate in (base.with_suffix(".py"), base / "__init__.py"):
                if candidate.is_file():
                    _collect(root, candidate, files)


def _imports(tree: ast.Module, package: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    """Yield the names that a module of `package` imports, in parts; of `from a import b` also a.b."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (tuple(alias.name.split(".")) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            own = package[: len(package) - node.level + 1] if node.level else ()
            base = (*own, *(node.module.split(".") if node.module else ()))
            yield from ((*base, alias.name) for alias in node.names)
