"""Makes one folder of a project's code importable under its own name, and nothing else beside it.

The parent folder never enters ``sys.path``: a finder of our own answers for the one top-level name. Bytecode is neither
read from the folder nor written into it, so that what runs is the source that was looked at, and the folder stays as it
is.
"""

from __future__ import annotations

import importlib.util
import sys
import threading
from collections.abc import Mapping, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import SOURCE_SUFFIXES, FileFinder, ModuleSpec, SourceFileLoader
from pathlib import Path
from types import CodeType, ModuleType

from innereye_core.digests import sha256_of_file
from innereye_core.errors import InputError


def register_extra_code(folder: Path) -> None:
    """Make ``folder`` importable in this process under its own name: ``YourCode/nets.py`` as ``YourCode.nets``.

    It may have an ``__init__.py`` or not; modules inside may import each other relatively and absolutely. A folder with
    the same ``*.py`` files as one registered before under the name changes nothing.

    Args:
        folder: the extra code directory.

    Raises:
        InputError: it is no folder, its name is no import name or is importable already, or other code was registered
            under the name in this process.
    """
    name = folder.absolute().name
    folder = folder.resolve()
    if not folder.is_dir():
        raise InputError(
            f"extra code directory {folder}: no such folder; name the folder that holds the network's code"
        )
    if not name.isidentifier():
        raise InputError(f"extra code directory {folder}: {name!r} is no Python import name; rename the folder")
    digests = _digests_of_sources(folder)
    with _LOCK:
        registered = _FINDER.registered.get(name)
        if registered is None:
            _refuse_importable(name, folder)
            _FINDER.registered[name] = (folder, digests)
            if _FINDER not in sys.meta_path:
                sys.meta_path.insert(0, _FINDER)
        elif registered[1] != digests:
            raise InputError(
                f"extra code directory {folder}: other code is in use as {name!r}, from {registered[0]}; "
                "use a new process for it, or rename the folder"
            )


class _SourceOnlyLoader(SourceFileLoader):
    """Compiles a module from its source each time."""

    def get_code(self, fullname: str) -> CodeType:
        path = self.get_filename(fullname)
        code: CodeType = self.source_to_code(self.get_data(path), path)
        return code


class _ExtraCodeFinder(MetaPathFinder):
    """Finds registered folders, and the modules below them."""

    def __init__(self) -> None:
        self.registered: dict[str, tuple[Path, Mapping[str, str]]] = {}

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        name, _, below = fullname.partition(".")
        if name not in self.registered:
            return None
        if not below:
            return _spec_of_folder(name, self.registered[name][0])
        finders = (FileFinder(entry, (_SourceOnlyLoader, SOURCE_SUFFIXES)) for entry in path or ())
        return next((spec for finder in finders if (spec := finder.find_spec(fullname)) is not None), None)


_FINDER = _ExtraCodeFinder()
_LOCK = threading.Lock()


def _digests_of_sources(folder: Path) -> dict[str, str]:
    return {path.relative_to(folder).as_posix(): sha256_of_file(path) for path in sorted(folder.rglob("*.py"))}


def _spec_of_folder(name: str, folder: Path) -> ModuleSpec:
    init = folder / "__init__.py"
    loader = _SourceOnlyLoader(name, str(init)) if init.is_file() else None
    spec = ModuleSpec(name, loader, origin=str(init) if loader else None, is_package=True)
    spec.submodule_search_locations = [str(folder)]
    spec.has_location = loader is not None
    return spec


def _refuse_importable(name: str, folder: Path) -> None:
    try:
        spec = importlib.util.find_spec(name)
    except ValueError:  # loaded without a spec, as __main__ is
        spec = ModuleSpec(name, None)
    if spec is None:
        return
    locations = [Path(location).resolve() for location in spec.submodule_search_locations or ()]
    if locations != [folder]:
        origin = spec.origin or ", ".join(map(str, locations)) or "this process"
        raise InputError(
            f"extra code directory {folder}: {name!r} is importable already, from {origin}; "
            "rename the folder, or remove the other from the environment"
        )
