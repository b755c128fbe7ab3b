"""Which Conda files go into a package's environment, and in which order."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from innereye_core import PackageOptions, SelectionOptions, package
from innereye_core.errors import InputError, MissingPluginError
from innereye_core.host import Host
from innereye_core.packaging.environment_files import third_party_requirements

LISTING = """
    from pathlib import Path

    from innereye_core import hookimpl
    from innereye_core.model import EnvironmentFile, MergedEnvironment

    class Listing:
        name = "listing"

        def merge(self, files, name=None, extra_code=None):
            lines = [f"# {file.priority} {file.label or file.path.name}" for file in files]
            return MergedEnvironment("\\n".join([*lines, "name: listed", ""]), ("doubtful",))

    @hookimpl
    def innereye_environment_mergers():
        return [Listing]

    @hookimpl
    def innereye_environment_files(run):
        return [EnvironmentFile(run.folder / "cuda.yml", 250), EnvironmentFile(run.folder / "base.yml", 50)]
"""


@pytest.fixture
def listing(toy: Path, install: Callable[..., str]) -> Host:
    """A host whose merger ``listing`` says what it was given."""
    install("acme", LISTING)
    return Host()


def listed(run: Path, host: Host, *environments: Path, extra_code: Path | None = None) -> list[str]:
    options = PackageOptions(environments=environments, merge_strategy="listing")
    made = package(run, SelectionOptions(extra_code_directory=extra_code), options, host=host)
    text = (made.folder / "environment.yml").read_text()
    return [line.removeprefix("# ") for line in text.splitlines() if line.startswith("# ")]


def environment(path: Path, text: str = "dependencies: [python]\n") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_order_is_toolbox_run_extra_code_command_line(run_folder: Path, listing: Host, tmp_path: Path) -> None:
    environment(tmp_path / "YourCode" / "environment.yml")
    first, second = environment(tmp_path / "z.yml"), environment(tmp_path / "a.yml")

    assert listed(run_folder, listing, first, second, extra_code=tmp_path / "YourCode") == [
        "50 base.yml",
        "100 requirements of innereye-core",
        "100 requirements of toy-innereye",
        "200 run/environment.yml",
        "250 cuda.yml",
        "300 YourCode/environment.yml",
        "400 z.yml",
        "400 a.yml",
    ]


def test_environment_of_the_run_is_optional(run_folder: Path, listing: Host) -> None:
    (run_folder / "environment.yml").unlink()
    assert "200 run/environment.yml" not in listed(run_folder, listing)


def test_fold_takes_the_environment_of_its_parent(folds: Path, listing: Host) -> None:
    assert "200 parent/environment.yml" in listed(folds / "1", listing)


def test_environment_of_a_fold_wins_over_its_parents(folds: Path, listing: Host) -> None:
    environment(folds / "1" / "environment.yml")
    files = listed(folds / "1", listing)
    assert "200 1/environment.yml" in files
    assert "200 parent/environment.yml" not in files


def test_environment_that_is_not_there(run_folder: Path, listing: Host, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"gone\.yml: no such environment file"):
        listed(run_folder, listing, tmp_path / "gone.yml")


def test_last_name_wins(run_folder: Path, host: Host, tmp_path: Path) -> None:
    last = environment(tmp_path / "last.yml", "name: mine\ndependencies: [python]\n")
    made = package(run_folder, packaging=PackageOptions(environments=(last,)), host=host)
    assert "name: mine" in (made.folder / "environment.yml").read_text().splitlines()


def test_merged_environment_has_what_toolbox_and_run_need(run_folder: Path, host: Host) -> None:
    environment(run_folder / "environment.yml", "channels: [conda-forge]\ndependencies: [python>=3.11, libjpeg]\n")

    lines = [
        line.strip(" -")
        for line in (package(run_folder, host=host).folder / "environment.yml").read_text().splitlines()
    ]

    assert "libjpeg" in lines
    assert [line for line in lines if line.startswith("pydantic")]
    assert not [line for line in lines if line.startswith("innereye")]


def test_contradiction_names_both_files(run_folder: Path, host: Host, tmp_path: Path) -> None:
    old = environment(tmp_path / "old.yml", "dependencies: [python=3.7]\n")
    with pytest.raises(InputError, match=r"python.*") as caught:
        package(run_folder, packaging=PackageOptions(environments=(old,)), host=host)
    assert "old.yml:1" in str(caught.value)


def test_warnings_of_the_merger_are_kept_in_the_manifest(run_folder: Path, listing: Host) -> None:
    made = package(run_folder, packaging=PackageOptions(merge_strategy="listing"), host=listing)
    assert made.manifest.environment_warnings == ("doubtful",)


# --- requirements of distributions ------------------------------------------------------------------------------------


def test_requirements_leave_out_distributions_of_this_project(toy: Path) -> None:
    assert [str(requirement) for requirement in third_party_requirements("toy-innereye")] == ["click>=8"]


def test_requirements_for_other_machines_are_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    info = tmp_path / "acme-1.dist-info"
    info.mkdir()
    requirements = [
        "numpy",
        "amiga; sys_platform == 'amiga'",
        "pytest; extra == 'test'",
        "attrs[x]>=2; python_version > '3'",
    ]
    lines = [f"Requires-Dist: {requirement}" for requirement in requirements]
    (info / "METADATA").write_text("\n".join(["Metadata-Version: 2.1", "Name: acme", "Version: 1", *lines]) + "\n")
    monkeypatch.syspath_prepend(tmp_path)

    assert [str(requirement) for requirement in third_party_requirements("acme")] == ["attrs[x]>=2", "numpy"]


def test_requirements_of_what_is_not_installed() -> None:
    with pytest.raises(MissingPluginError, match=r"distribution 'acme-gone' is not installed.*pip install acme-gone$"):
        third_party_requirements("acme-gone")
