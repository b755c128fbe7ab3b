"""A folder of code becomes importable under its own name, alone, and stays as it is."""

from __future__ import annotations

import importlib
import importlib.util
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from innereye_core.errors import InputError
from innereye_segmentation.networks.extra_code import register_extra_code

WriteCode = Callable[..., Path]


def test_modules_are_imported_below_the_name_of_the_folder(extra_code: WriteCode) -> None:
    folder = extra_code({"nets.py": "value = 1"})
    register_extra_code(folder)
    assert importlib.import_module(f"{folder.name}.nets").value == 1


def test_with_an_init_it_is_a_regular_package(extra_code: WriteCode) -> None:
    folder = extra_code({"__init__.py": "value = 2", "inner/__init__.py": "", "inner/nets.py": "value = 3"})
    register_extra_code(folder)
    package = importlib.import_module(folder.name)
    assert package.value == 2
    assert Path(str(package.__file__)) == folder / "__init__.py"
    assert importlib.import_module(f"{folder.name}.inner.nets").value == 3


@pytest.mark.parametrize("with_init", [True, False])
def test_relative_and_absolute_imports_inside_work(extra_code: WriteCode, with_init: bool) -> None:
    folder = extra_code({"layers/blocks.py": "value = 4", "nets.py": ""})
    if with_init:
        (folder / "__init__.py").touch()
    (folder / "nets.py").write_text(
        "from .layers.blocks import value as relative\n"
        f"from {folder.name}.layers import blocks\nabsolute = blocks.value\n"
    )
    register_extra_code(folder)
    nets = importlib.import_module(f"{folder.name}.nets")
    assert (nets.relative, nets.absolute) == (4, 4)


def test_a_link_is_imported_under_its_own_name(extra_code: WriteCode) -> None:
    folder = extra_code({"nets.py": "value = 11"})
    link = folder.with_name(f"{folder.name}Link")
    link.symlink_to(folder)
    register_extra_code(link)
    assert importlib.import_module(f"{link.name}.nets").value == 11


def test_nothing_beside_the_folder_becomes_importable(extra_code: WriteCode) -> None:
    folder = extra_code({"nets.py": ""})
    sibling = extra_code({"nets.py": ""})
    folder.with_suffix(".py").write_text("raise RuntimeError('the neighbour was imported')")
    before = list(sys.path)
    register_extra_code(folder)
    importlib.import_module(f"{folder.name}.nets")
    assert sys.path == before
    assert importlib.util.find_spec(sibling.name) is None


def test_no_bytecode_is_written_into_the_folder_or_read_from_it(extra_code: WriteCode) -> None:
    folder = extra_code({"__init__.py": "", "nets.py": "value = 5"})
    register_extra_code(folder)
    assert importlib.import_module(f"{folder.name}.nets").value == 5
    assert sorted(path.name for path in folder.rglob("*")) == ["__init__.py", "nets.py"]


def test_the_same_code_in_another_folder_is_the_same_code(extra_code: WriteCode, tmp_path: Path) -> None:
    folder = extra_code({"nets.py": "value = object()"})
    copy = tmp_path / "final_model" / folder.name
    shutil.copytree(folder, copy)
    register_extra_code(folder)
    value = importlib.import_module(f"{folder.name}.nets").value
    register_extra_code(copy)
    assert importlib.import_module(f"{folder.name}.nets").value is value


def test_other_code_under_a_name_in_use_is_refused(extra_code: WriteCode) -> None:
    folder = extra_code({"nets.py": "value = 6"})
    other = extra_code({"nets.py": "value = 7"}, name=folder.name, parent="other")
    register_extra_code(folder)
    with pytest.raises(InputError, match=rf"other code is in use as '{folder.name}', from .*new process"):
        register_extra_code(other)


def test_code_that_was_changed_after_it_was_registered_is_refused(extra_code: WriteCode) -> None:
    folder = extra_code({"nets.py": "value = 8"})
    register_extra_code(folder)
    (folder / "nets.py").write_text("value = 9")
    with pytest.raises(InputError, match="other code is in use"):
        register_extra_code(folder)


@pytest.mark.parametrize("name", ["json", "torch", "innereye_core", "__main__"])
def test_a_name_that_is_importable_already_is_refused(extra_code: WriteCode, name: str) -> None:
    with pytest.raises(InputError, match=f"'{name}' is importable already, from .*rename the folder"):
        register_extra_code(extra_code({"nets.py": ""}, name=name))


def test_the_name_of_a_loaded_module_is_refused_wherever_that_came_from(
    extra_code: WriteCode, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = extra_code({"nets.py": ""})
    monkeypatch.setitem(sys.modules, folder.name, ModuleType(folder.name))
    with pytest.raises(InputError, match="is importable already, from this process"):
        register_extra_code(folder)


def test_a_folder_that_is_importable_itself_is_accepted(extra_code: WriteCode, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = extra_code({"nets.py": "value = 10"})
    monkeypatch.syspath_prepend(folder.parent)  # as where `python final_model/score.py` runs
    register_extra_code(folder)
    assert importlib.import_module(f"{folder.name}.nets").value == 10
    assert not (folder / "__pycache__").exists()


def test_a_missing_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such folder"):
        register_extra_code(tmp_path / "Missing")


def test_a_folder_whose_name_cannot_be_imported_is_refused(extra_code: WriteCode) -> None:
    with pytest.raises(InputError, match="'my-code' is no Python import name; rename the folder"):
        register_extra_code(extra_code({"nets.py": ""}, name="my-code"))
