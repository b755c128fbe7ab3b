"""The folder of code that a network comes from: it travels in the package under its own name, or is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from innereye_core import SelectionOptions, package
from innereye_core.config_files import PackagedConfig, read_inference_config
from innereye_core.errors import InputError
from innereye_core.host import Host

Install = Callable[..., str]


def files(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def assert_nothing_made(run: Path) -> None:
    assert not [path.name for path in run.iterdir() if "final" in path.name or "staging" in path.name]


NETS = """\
class Inverted:
    weight_names = ("threshold",)
    size_multiple_zyx = minimum_size_zyx = (1, 1, 1)
    channels = 1

    def foreground(self, values):
        return 1.0 if values[0] < self.weights["threshold"] else 0.0
"""


@pytest.fixture
def code_run(run_folder: Path) -> Path:
    """A run whose network comes from YourCode/ in its folder."""
    code = run_folder / "YourCode"
    code.mkdir()
    (code / "nets.py").write_text(NETS)
    text = (run_folder / "model.yaml").read_text().replace("toy_innereye.networks:Threshold", "YourCode.nets:Inverted")
    (run_folder / "model.yaml").write_text(f"{text}extra_code_directory: YourCode\n")
    return run_folder


def test_extra_code_travels_under_its_own_name(code_run: Path, host: Host) -> None:
    made = package(code_run, host=host)

    assert (made.folder / "YourCode" / "nets.py").read_text() == NETS
    assert made.manifest.extra_code == "YourCode"
    assert {record.path: record.role for record in made.manifest.files}["YourCode/nets.py"] == "code"
    packaged = read_inference_config(made.folder / "model_inference_config.json")
    assert isinstance(packaged, PackagedConfig)
    assert packaged.config.extra_code_directory == "YourCode"


def test_bytecode_and_hidden_files_stay_behind(code_run: Path, host: Host) -> None:
    code = code_run / "YourCode"
    for path in ("__pycache__/nets.pyc", "old.pyc", ".git/config", ".secret", "data/table.csv"):
        (code / path).parent.mkdir(exist_ok=True)
        (code / path).write_text("x")

    made = package(code_run, host=host)

    assert files(made.folder / "YourCode") == {"nets.py", "data/table.csv"}


def test_code_named_by_the_caller_wins_over_that_of_the_config(code_run: Path, host: Host, tmp_path: Path) -> None:
    other = tmp_path / "elsewhere" / "YourCode"
    other.mkdir(parents=True)
    (other / "nets.py").write_text(NETS + "# newer\n")

    made = package(code_run, SelectionOptions(extra_code_directory=other), host=host)

    assert (made.folder / "YourCode" / "nets.py").read_text().endswith("# newer\n")


def test_missing_extra_code(code_run: Path, host: Host) -> None:
    (code_run / "YourCode").rename(code_run / "MyCode")
    with pytest.raises(InputError, match=r"YourCode: no such extra code directory"):
        package(code_run, host=host)
    assert_nothing_made(code_run)


@pytest.mark.parametrize("name", ["checkpoints", "InnerEye", "your-code"])
def test_extra_code_with_a_name_that_cannot_travel(run_folder: Path, host: Host, tmp_path: Path, name: str) -> None:
    (tmp_path / "code" / name).mkdir(parents=True)
    with pytest.raises(InputError, match=rf"cannot travel in a package under the name '{name}'; rename the folder"):
        package(run_folder, SelectionOptions(extra_code_directory=tmp_path / "code" / name), host=host)
    assert_nothing_made(run_folder)


def test_extra_code_with_a_link_that_leads_out(code_run: Path, host: Host, tmp_path: Path) -> None:
    (tmp_path / "secret.py").write_text("x = 1")
    (code_run / "YourCode" / "linked.py").symlink_to(tmp_path / "secret.py")

    with pytest.raises(InputError, match=r"YourCode/linked\.py: links to a file outside"):
        package(code_run, host=host)

    assert_nothing_made(code_run)


@pytest.mark.parametrize("inside", [True, False])
def test_extra_code_with_a_link_to_a_folder(code_run: Path, host: Host, tmp_path: Path, inside: bool) -> None:
    folder = (code_run / "YourCode" if inside else tmp_path) / "layers"
    folder.mkdir()
    (code_run / "YourCode" / "linked").symlink_to(folder)

    with pytest.raises(InputError, match=r"YourCode/linked: links to a folder, .*/layers; put a copy"):
        package(code_run, host=host)

    assert_nothing_made(code_run)


def test_extra_code_with_a_link_inside_travels_as_a_file(code_run: Path, host: Host) -> None:
    (code_run / "YourCode" / "same.py").symlink_to("nets.py")

    made = package(code_run, host=host)

    copy = made.folder / "YourCode" / "same.py"
    assert copy.read_text() == NETS
    assert not copy.is_symlink()


def test_factory_that_nobody_could_find_later(run_folder: Path, host: Host, tmp_path: Path) -> None:
    site = tmp_path / "loose"
    site.mkdir()
    (site / "loosenets.py").write_text(NETS)
    text = (run_folder / "model.yaml").read_text().replace("toy_innereye.networks:Threshold", "loosenets:Inverted")
    (run_folder / "model.yaml").write_text(text)

    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(site)
        with pytest.raises(InputError, match=r"network\.factory: 'loosenets:Inverted': .* extra_code_directory"):
            package(run_folder, host=host)

    assert_nothing_made(run_folder)
