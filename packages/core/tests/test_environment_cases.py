"""The numbered cases of facts/environments.md, one test each, and the merges of the original toolbox."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import pytest
from ruamel.yaml import YAML

from innereye_core.builtin.environments import CondaMerge
from innereye_core.contract.providers import EnvironmentMerger
from innereye_core.errors import InputError
from innereye_core.model import EnvironmentFile, MergedEnvironment

Merge: TypeAlias = Callable[..., MergedEnvironment]

GOLDEN = Path(__file__).parents[3].parent / "shared" / "golden" / "envmerge"


@pytest.fixture
def merge(tmp_path: Path) -> Merge:
    """Merge texts as if they were the files a.yml, b.yml, …"""

    def merge_texts(*texts: str, **options: Any) -> MergedEnvironment:
        files = []
        for letter, text in zip("abcdef", texts, strict=False):
            path = tmp_path / f"{letter}.yml"
            path.write_text(text, encoding="utf-8")
            files.append(EnvironmentFile(path, 400, path.name))
        return CondaMerge().merge(files, **options)

    return merge_texts


def content(merged: MergedEnvironment) -> dict[str, Any]:
    loaded: dict[str, Any] = YAML(typ="safe", pure=True).load(merged.text)
    return loaded


def conda(*specs: str) -> str:
    return "dependencies:\n" + "".join(f"  - {spec}\n" for spec in specs)


def pip(*lines: str) -> str:
    return "dependencies:\n  - pip:\n" + "".join(f"    - {line}\n" for line in lines)


def pip_lines(merged: MergedEnvironment) -> list[str]:
    lines: list[str] = content(merged)["dependencies"][-1]["pip"]
    return lines


def test_the_merger_is_a_provider() -> None:
    assert isinstance(CondaMerge(), EnvironmentMerger)
    assert CondaMerge.name == "conda-merge"


# --- channels ---------------------------------------------------------------------------------------------------------


def test_case_01_channels_that_overlap_are_joined(merge: Merge) -> None:
    merged = merge("channels: [a, b]", "channels: [b, c]")
    assert content(merged) == {"channels": ["a", "b", "c"]}
    assert merged.warnings == ()


def test_case_02_channels_in_opposite_orders_are_refused(merge: Merge) -> None:
    with pytest.raises(InputError) as refused:
        merge("channels:\n  - pytorch\n  - defaults\n", "channels:\n  - defaults\n  - pytorch\n")
    assert str(refused.value) == (
        "a.yml:2: channel pytorch stands above defaults, but b.yml:2 has defaults above pytorch; use the same order in"
        " both files"
    )


def test_case_02_opposite_orders_over_three_files_are_refused(merge: Merge) -> None:
    with pytest.raises(InputError, match="no order of channels has") as refused:
        merge("channels: [x, y]", "channels: [y, z]", "channels: [z, x]")
    for part in ("x above y (a.yml:1)", "y above z (b.yml:1)", "z above x (c.yml:1)"):
        assert part in str(refused.value)


def test_case_03_a_channel_that_is_repeated_in_one_file_counts_once(merge: Merge) -> None:
    merged = merge("channels:\n  - a\n  - b\n  - a\n")
    assert content(merged) == {"channels": ["a", "b"]}
    assert merged.warnings == ("a.yml:4: the channel a is there twice; its place in line 2 counts",)


def test_case_04_a_new_channel_comes_last(merge: Merge) -> None:
    assert content(merge("channels: [pytorch, conda-forge]", "channels: [nvidia]")) == {
        "channels": ["pytorch", "conda-forge", "nvidia"]
    }


def test_case_04_a_new_channel_overtakes_only_where_its_own_file_says_so(merge: Merge) -> None:
    assert content(merge("channels: [a, b, c]", "channels: [new, b, later]")) == {
        "channels": ["a", "new", "b", "c", "later"]
    }


def test_case_05_channels_as_a_text_are_refused(merge: Merge) -> None:
    with pytest.raises(InputError, match=r"^a\.yml:2: channels is a text; write a list"):
        merge("name: x\nchannels: defaults\n")


# --- conda dependencies -----------------------------------------------------------------------------------------------


def test_case_06_contradicting_versions_are_refused(merge: Merge) -> None:
    with pytest.raises(InputError) as refused:
        merge(conda("python=3.8", "numpy=1.21"), "name: x\n" + conda("numpy>=1.24"))
    assert str(refused.value) == (
        "a.yml:3: numpy=1.21 contradicts numpy>=1.24 (b.yml:3); no version satisfies them together, change one of them"
    )


def test_case_07_versions_that_can_hold_together_are_kept(merge: Merge) -> None:
    merged = merge(conda("numpy>=1.2"), conda("numpy<2"))
    assert content(merged)["dependencies"] == ["numpy<2", "numpy>=1.2"]
    assert merged.warnings == ()


def test_case_08_the_same_spec_twice_is_one(merge: Merge) -> None:
    assert content(merge(conda("numpy=1.21"), conda("numpy=1.21")))["dependencies"] == ["numpy=1.21"]


def test_case_09_blanks_make_no_difference(merge: Merge) -> None:
    assert content(merge(conda("numpy = 1.21"), conda("numpy=1.21")))["dependencies"] == ["numpy=1.21"]


def test_case_10_capital_letters_make_no_difference(merge: Merge) -> None:
    assert content(merge(conda("NumPy"), conda("numpy")))["dependencies"] == ["numpy"]


def test_case_11_different_builds_are_refused(merge: Merge) -> None:
    with pytest.raises(
        InputError, match=r"^a\.yml:2: numpy=1.21=py38_0 contradicts numpy=1.21=py39_0 \(b\.yml:2\); they"
    ):
        merge(conda("numpy=1.21=py38_0"), conda("numpy=1.21=py39_0"))


def test_case_12_the_form_with_the_channel_stays(merge: Merge) -> None:
    assert content(merge(conda("numpy=1.2"), conda("conda-forge::numpy=1.2")))["dependencies"] == [
        "conda-forge::numpy=1.2"
    ]


# --- pip --------------------------------------------------------------------------------------------------------------


def test_case_13_contradicting_pip_versions_are_refused(merge: Merge) -> None:
    with pytest.raises(InputError, match=r"^a\.yml:3: a==1 contradicts a==2 \(b\.yml:3\); no version"):
        merge(pip("a==1"), pip("a==2"))


def test_case_14_pip_names_are_normalised(merge: Merge) -> None:
    assert pip_lines(merge(pip("a_b"), pip("a-b", "A.B"))) == ["a_b"]


@pytest.mark.parametrize("section", ["pip:", "pip: []", "pip: ~"])
def test_case_15_an_empty_pip_section_is_ignored(merge: Merge, section: str) -> None:
    assert content(merge(conda("numpy", section)))["dependencies"] == ["numpy"]


def test_case_16_other_sections_in_dependencies_are_refused(merge: Merge) -> None:
    with pytest.raises(InputError, match=r"^a\.yml:3: dependencies hold package names and a pip: list, not 'poetry'"):
        merge(conda("numpy", "poetry: [numpy]"))


def test_case_17_options_come_first_in_their_order(merge: Merge) -> None:
    first = pip("zlib-state", "--extra-index-url https://b.example/simple", "--index-url https://z.example/simple")
    second = pip("attrs", "--extra-index-url=https://b.example/simple", "--extra-index-url https://a.example/simple")
    assert pip_lines(merge(first, second)) == [
        "--extra-index-url https://b.example/simple",
        "--index-url https://z.example/simple",
        "--extra-index-url https://a.example/simple",
        "attrs",
        "zlib-state",
    ]


def test_case_17_requirement_files_are_inlined(merge: Merge, tmp_path: Path) -> None:
    (tmp_path / "requirements.txt").write_text("torch==1.10.0\n")
    assert pip_lines(merge(pip("-r requirements.txt", "attrs"))) == ["attrs", "torch==1.10.0"]


def test_case_17_editable_code_is_refused_outside_the_extra_code(merge: Merge, tmp_path: Path) -> None:
    (tmp_path / "YourCode").mkdir()
    (tmp_path / "other").mkdir()
    with pytest.raises(InputError, match=r"^a\.yml:3: -e \./other points to code that does not travel"):
        merge(pip("-e ./other"), extra_code=tmp_path / "YourCode")
    assert pip_lines(merge(pip("-e ./YourCode"), extra_code=tmp_path / "YourCode")) == ["-e ./YourCode"]


def test_case_18_version_control_is_kept_with_a_warning_unless_pinned(merge: Merge) -> None:
    pinned = f"git+https://host.example/pinned.git@{'0a' * 20}#egg=pinned"
    merged = merge(pip("git+https://host.example/tool.git@main#egg=tool", pinned))
    assert pip_lines(merged) == [pinned, "git+https://host.example/tool.git@main#egg=tool"]
    (warning,) = merged.warnings
    assert warning.startswith("a.yml:3: git+https://host.example/tool.git@main#egg=tool is not pinned to a commit")


# --- the rest of the file ---------------------------------------------------------------------------------------------


def test_case_19_the_last_name_wins_unless_one_is_given(merge: Merge) -> None:
    assert content(merge("name: a", "name: b", conda("numpy")))["name"] == "b"
    assert content(merge("name: a", "name: b", name="c"))["name"] == "c"


def test_case_20_prefix_is_dropped_with_a_warning(merge: Merge) -> None:
    merged = merge("name: a\nprefix: /opt/conda/envs/a\n")
    assert content(merged) == {"name": "a"}
    assert merged.warnings == ("a.yml:2: prefix names a folder of one machine and is dropped",)


def test_case_21_the_last_value_of_a_variable_wins_with_a_warning(merge: Merge) -> None:
    merged = merge("variables:\n  A: one\n  B: same\n", "variables:\n  A: two\n  B: same\n")
    assert content(merged) == {"variables": {"A": "two", "B": "same"}}
    assert merged.warnings == ("b.yml:2: the variable A replaces its other value (a.yml:2)",)


def test_case_22_variables_as_a_list_are_refused(merge: Merge) -> None:
    with pytest.raises(InputError, match=r"^a\.yml:2: variables is a list; write lines such as NAME: value"):
        merge("variables:\n  - A=1\n")


@pytest.mark.parametrize("empty", ["", "# nothing\n", "---\n", "channels:\ndependencies:\nvariables:\nname:\n"])
def test_case_23_an_empty_file_is_fine(merge: Merge, empty: str) -> None:
    assert content(merge(empty, conda("numpy"))) == {"dependencies": ["numpy"]}


def test_case_23_only_empty_files_make_an_empty_environment(merge: Merge) -> None:
    assert content(merge("", "")) == {"dependencies": []}


def test_case_23_a_list_is_refused(merge: Merge) -> None:
    with pytest.raises(InputError, match=r"^a\.yml:1: the file is a list; an environment is a mapping"):
        merge("- numpy\n")


def test_case_24_duplicate_keys_are_refused(merge: Merge) -> None:
    with pytest.raises(InputError, match=r"^a\.yml:4: 'dependencies' is there twice \(first in line 2\); keep one$"):
        merge("name: x\ndependencies:\n  - numpy\ndependencies:\n  - scipy\n")


@pytest.mark.parametrize(
    ("written", "kind"),
    [
        ("3.7", "the dependency 3.7 is a number"),
        ("", "the dependency is empty"),
        ("~", "the dependency ~ is empty"),
        ("true", "the dependency true is true or false"),
        ("2020-01-01", "the dependency 2020-01-01 is a date"),
        ("[numpy]", "the dependency is a list"),
        ("''", "the dependency is empty"),
    ],
)
def test_case_25_what_is_no_text_is_refused_as_a_dependency(merge: Merge, written: str, kind: str) -> None:
    with pytest.raises(InputError) as refused:
        merge(conda("numpy", written))
    assert str(refused.value).startswith(f"a.yml:3: {kind}; ")


def test_pytorch_of_conda_is_torch_of_pip(merge: Merge) -> None:
    (warning,) = merge(conda("pytorch=1.13"), pip("torch>=2.4", "numpy")).warnings
    assert warning.startswith("b.yml:3: pip's torch>=2.4 contradicts conda's pytorch=1.13 (a.yml:2);")


def test_conda_and_pip_that_contradict_each_other_are_a_warning(merge: Merge) -> None:
    merged = merge(conda("ruamel.yaml=0.17"), pip("ruamel-yaml>=0.18", "numpy"))
    (warning,) = merged.warnings
    assert warning.startswith("b.yml:3: pip's ruamel-yaml>=0.18 contradicts conda's ruamel.yaml=0.17 (a.yml:2);")


# --- the original's results -------------------------------------------------------------------------------------------

needs_golden = pytest.mark.skipif(
    not GOLDEN.is_dir(), reason="the golden data of the original are not beside the checkout"
)


def merge_golden(case: str) -> MergedEnvironment:
    return CondaMerge().merge([EnvironmentFile(GOLDEN / f"{case}_{side}.yml", 200) for side in "ab"])


@needs_golden
@pytest.mark.parametrize("case", ["1_simple", "2_no_name_second", "3_duplicate_same"])
def test_golden_merges_agree_with_the_original(case: str) -> None:
    expected = YAML(typ="safe", pure=True).load(GOLDEN / f"{case}_merged.yml")
    merged = merge_golden(case)
    assert content(merged) == expected
    assert merged.warnings == ()


@needs_golden
def test_golden_contradiction_of_channels_is_refused() -> None:
    with pytest.raises(InputError, match="channel pytorch stands above defaults"):
        merge_golden("7_channel_order_conflict")
