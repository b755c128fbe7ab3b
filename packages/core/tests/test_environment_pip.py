"""The pip sections: requirement files, options, paths, addresses, markers, extras and contradictions."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import pytest
from packaging.specifiers import InvalidSpecifier, SpecifierSet
from ruamel.yaml import YAML

from innereye_core.builtin.environments import CondaMerge
from innereye_core.environments.pip_versions import is_unsatisfiable, no_boundary_satisfies
from innereye_core.errors import InputError
from innereye_core.model import EnvironmentFile, MergedEnvironment

MergePip: TypeAlias = Callable[..., MergedEnvironment]

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def merge_pip(tmp_path: Path) -> MergePip:
    """Merge pip sections as if they stood in a.yml, b.yml, …, each line as YAML text from line 3 on."""

    def merge(*sections: list[str], **options: Any) -> MergedEnvironment:
        files = []
        for letter, lines in zip("abcdef", sections, strict=False):
            path = tmp_path / f"{letter}.yml"
            items = "".join("    - '" + line.replace("'", "''") + "'\n" for line in lines)
            path.write_text(f"dependencies:\n  - pip:\n{items}")
            files.append(EnvironmentFile(path, 400, path.name))
        return CondaMerge().merge(files, **options)

    return merge


def lines(merged: MergedEnvironment) -> list[str]:
    found: list[str] = YAML(typ="safe", pure=True).load(merged.text)["dependencies"][0]["pip"]
    return found


def refusal(merge_pip: MergePip, *sections: list[str], **options: Any) -> str:
    with pytest.raises(InputError) as refused:
        merge_pip(*sections, **options)
    message = str(refused.value)
    assert "\n" not in message
    return message


# --- requirement files ------------------------------------------------------------------------------------------------


def test_nested_files_are_inlined_relative_to_the_file_that_names_them(merge_pip: MergePip, tmp_path: Path) -> None:
    (tmp_path / "deep" / "deeper").mkdir(parents=True)
    (tmp_path / "deep" / "one.txt").write_bytes(
        b"\xef\xbb\xbf# comment\r\n-r deeper/two.txt\r\nattrs==21.1  # why\r\n--pre\r\n"
    )
    (tmp_path / "deep" / "deeper" / "two.txt").write_text("numpy>=1.2, \\\n  <2\n\nzipp")
    merged = merge_pip(["--no-binary :all:", "--requirement=deep/one.txt"])
    assert lines(merged) == ["--no-binary :all:", "--pre", "attrs==21.1", "numpy>=1.2,   <2", "zipp"]


def test_a_file_that_is_named_twice_is_inlined_once(merge_pip: MergePip, tmp_path: Path) -> None:
    (tmp_path / "base.txt").write_text("attrs\n")
    (tmp_path / "one.txt").write_text("-r base.txt\n")
    (tmp_path / "two.txt").write_text("-rbase.txt\n")
    assert lines(merge_pip(["-r one.txt", "-r two.txt"])) == ["attrs"]


def test_contradictions_name_the_line_of_the_requirement_file(merge_pip: MergePip, tmp_path: Path) -> None:
    (tmp_path / "base.txt").write_text("attrs\nnumpy<1.2\n")
    assert refusal(merge_pip, ["-r base.txt"], ["numpy>=1.2"]).startswith(
        "base.txt:2: numpy<1.2 contradicts numpy>=1.2 (b.yml:3);"
    )


def test_a_requirement_file_is_named_by_its_path_where_the_environment_has_no_label(tmp_path: Path) -> None:
    (tmp_path / "base.txt").write_text("attrs==x\n")
    environment = tmp_path / "environment.yml"
    environment.write_text("dependencies: [pip: [-r base.txt]]")
    with pytest.raises(InputError) as refused:
        CondaMerge().merge([EnvironmentFile(environment, 200)])
    assert str(refused.value).startswith(f"{tmp_path / 'base.txt'}:1: attrs==x is no pip requirement")


@pytest.mark.parametrize("second", ["one.txt", "./one.txt", "sub/../one.txt"])
def test_files_that_include_themselves_are_refused(merge_pip: MergePip, tmp_path: Path, second: str) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "one.txt").write_text("attrs\n-r two.txt\n")
    (tmp_path / "two.txt").write_text(f"-r {second}\n")
    message = refusal(merge_pip, ["-r one.txt"])
    assert message == f"two.txt:1: -r {second} includes itself; remove one of the -r lines"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("-r missing.txt", "a.yml:3: -r missing.txt: missing.txt: no such file; check the path"),
        ("-r .", "a.yml:3: -r .: .: is a folder; name the file inside it"),
        ("-r https://host.example/r.txt", "a.yml:3: -r https://host.example/r.txt is not on this machine; copy"),
        ("-r one.txt two.txt", "a.yml:3: -r one.txt two.txt must name one file or address"),
        ("-r", "a.yml:3: -r must name one file or address"),
        ("-r 'x", "a.yml:3: -r 'x cannot be read (No closing quotation); correct the quotes"),
        ("--pre -r one.txt", "a.yml:3: --pre -r one.txt has several options; write -r on a line of its own"),
        ("-c versions.txt", "a.yml:3: -c versions.txt names a file on this machine, which does not travel"),
        ("--find-links=wheels", "a.yml:3: --find-links=wheels names a file on this machine"),
    ],
)
def test_options_that_point_to_files_are_checked(merge_pip: MergePip, line: str, message: str) -> None:
    assert refusal(merge_pip, [line]).startswith(message)


# --- options ----------------------------------------------------------------------------------------------------------


def test_options_with_web_addresses_are_kept(merge_pip: MergePip) -> None:
    options = ["-c https://host.example/c.txt", "-f https://host.example/wheels", "-i https://host.example/simple"]
    assert lines(merge_pip(options)) == options


def test_the_same_option_in_another_spelling_is_one(merge_pip: MergePip) -> None:
    spellings = [
        "-i https://a.example",
        "-ihttps://a.example",
        "--index-url=https://a.example",
        "--index-url https://a.example",
    ]
    merged = merge_pip(*([spelling] for spelling in spellings))
    assert lines(merged) == ["-i https://a.example"]
    assert merged.warnings == ()


def test_a_second_index_is_a_warning(merge_pip: MergePip) -> None:
    merged = merge_pip(["-i https://a.example"], ["--index-url https://b.example"])
    assert merged.warnings == (
        "b.yml:3: --index-url https://b.example replaces -i https://a.example (a.yml:3); pip uses the last one",
    )


def test_a_comment_or_the_end_closes_what_a_backslash_continued(merge_pip: MergePip) -> None:
    assert lines(merge_pip(["attrs \\", "# comment", "numpy", "zipp \\"])) == ["attrs", "numpy", "zipp"]


def test_hashes_stay_with_their_requirement(merge_pip: MergePip) -> None:
    hashed = f"attrs==21.1 --hash=sha256:{'0' * 64}"
    merged = merge_pip([hashed, "attrs"], [hashed, "numpy"])
    assert lines(merged) == ["attrs", hashed, "numpy"]
    assert merged.warnings == ("a.yml:3: attrs has a --hash, and pip then wants one for every requirement",)


# --- code in the package ----------------------------------------------------------------------------------------------


def test_paths_into_the_extra_code_are_written_as_they_are_in_the_package(merge_pip: MergePip, tmp_path: Path) -> None:
    code = tmp_path / "project" / "YourCode"
    (code / "tool").mkdir(parents=True)
    merged = merge_pip(["-e project/YourCode[train]", "./project/YourCode/tool"], extra_code=code)
    assert lines(merged) == [
        "-e ./YourCode[train]",
        "./YourCode/tool",
    ]
    (warning,) = merged.warnings
    assert warning.startswith("a.yml:3: installing -e project/YourCode[train] writes files beside the packaged code")


def test_a_path_that_is_right_already_stays_as_it_was_written(merge_pip: MergePip, tmp_path: Path) -> None:
    (tmp_path / "YourCode" / "tool").mkdir(parents=True)
    (tmp_path / "YourCode" / "my tool").mkdir()
    given = ["--editable YourCode", "YourCode/tool", "-e 'YourCode/my tool'"]
    merged = merge_pip(given, extra_code=tmp_path / "YourCode")
    assert lines(merged) == ["-e 'YourCode/my tool'", "-e YourCode", "YourCode/tool"]


def test_a_link_out_of_the_extra_code_is_refused(merge_pip: MergePip, tmp_path: Path) -> None:
    (tmp_path / "YourCode").mkdir()
    (tmp_path / "secret").mkdir()
    (tmp_path / "YourCode" / "link").symlink_to(tmp_path / "secret")
    assert "does not travel" in refusal(merge_pip, ["-e ./YourCode/link"], extra_code=tmp_path / "YourCode")


@pytest.mark.parametrize(
    "line",
    [
        "-e .",
        "-e ../x",
        "-e ~/x",
        "-e /x",
        "-e file:x",
        ".",
        "./x",
        "../x.whl",
        "/x",
        "x/y",
        "x.whl",
        "x-1.0.tar.gz",
        "file:x",
    ],
)
def test_paths_that_do_not_travel_are_refused(merge_pip: MergePip, tmp_path: Path, line: str) -> None:
    (tmp_path / "YourCode").mkdir()
    for extra_code in (None, tmp_path / "YourCode"):
        message = refusal(merge_pip, [line], extra_code=extra_code)
        assert message.startswith(f"a.yml:3: {line} points to code that does not travel with the model")


def test_a_missing_path_in_the_extra_code_is_refused(merge_pip: MergePip, tmp_path: Path) -> None:
    (tmp_path / "YourCode").mkdir()
    message = refusal(merge_pip, ["-e YourCode/missing"], extra_code=tmp_path / "YourCode")
    assert message == "a.yml:3: -e YourCode/missing does not exist; correct the path"


def test_editable_checkouts_are_refused(merge_pip: MergePip) -> None:
    message = refusal(merge_pip, [f"-e git+https://host.example/x.git@{COMMIT}#egg=x"])
    assert message.endswith("is editable, and no checkout travels with the model; remove -e")


# --- one package, several requirements --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("first", "second", "merged"),
    [
        ("a", "a==1", "a==1"),
        ("a == 1.0", "A==1", "a == 1.0"),
        ("a>=1.2", "a<2", "a>=1.2,<2"),
        ("a[x]", "a[y]", "a[x,y]"),
        ("a[x]>=1", "a[y,x]<2,!=1.5", "a[x,y]>=1,!=1.5,<2"),
        ("a>=1; python_version<'3.9'", "a<2 ; python_version < '3.9'", 'a>=1,<2; python_version < "3.9"'),
        ("a", "a @ https://host.example/a.zip", "a @ https://host.example/a.zip"),
        ("a[x]", "a[x,y] @ https://host.example/a.zip", "a[x,y] @ https://host.example/a.zip"),
        (
            f"a @ git+https://host.example/a@{COMMIT}",
            f"git+https://host.example/a@{COMMIT}#egg=a",
            f"a @ git+https://host.example/a@{COMMIT}",
        ),
        ("a", "https://host.example/a-1.0-py3-none-any.whl", "https://host.example/a-1.0-py3-none-any.whl"),
        ("https://host.example/x.tar.gz", "https://host.example/x.tar.gz", "https://host.example/x.tar.gz"),
    ],
)
def test_requirements_of_one_package_become_one_line(merge_pip: MergePip, first: str, second: str, merged: str) -> None:
    result = merge_pip([first], [second])
    assert lines(result) == [merged]
    assert result.warnings == ()


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("a==1; python_version<'3.9'", "a==2; python_version>='3.9'"),
        ("a==1; python_version<'3.9'", "a==2"),
        (f"a @ git+https://host.example/a@{COMMIT} ; python_version<'3'", "a @ https://host.example/a.zip"),
        ("a[x] @ https://host.example/a.zip", "a[y] @ https://host.example/a.zip"),
        ("https://host.example/x.tar.gz", "https://host.example/y.tar.gz"),
        (f"git+https://host.example/a@{COMMIT}#egg=a[x]", f"git+https://host.example/a@{COMMIT}#egg=a[y]"),
        ("https://host.example/a-1-py3-none-any.whl ; python_version<'3'", "https://host.example/a-2-py3-none-any.whl"),
    ],
)
def test_what_may_differ_stays_apart(merge_pip: MergePip, first: str, second: str) -> None:
    merged = merge_pip([first], [second])
    assert sorted(lines(merged)) == sorted([first, second])
    assert merged.warnings == ()


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("a<1", "a>=1"),
        ("a~=1.2", "A>=2"),
        ("a==1.2.*", "a!=1.2.*"),
        ("a==1; python_version<'3.9'", "a==2; python_version < '3.9'"),
        ("a[x]==1", "a==2"),
        ("a==1 --hash=sha256:00", "a==2 --hash=sha256:11"),
        ("a @ https://host.example/a.zip", "a @ https://host.example/b.zip"),
        ("a @ https://host.example/a-1-py3-none-any.whl", "https://host.example/a-2-py3-none-any.whl"),
        (f"git+https://host.example/a@{COMMIT}#egg=a", f"git+https://host.example/a@{COMMIT[::-1]}#egg=a"),
    ],
)
def test_contradictions_are_refused(merge_pip: MergePip, first: str, second: str) -> None:
    message = refusal(merge_pip, [first], ["zipp", second])
    assert message.startswith(f"a.yml:3: {first} contradicts {second} (b.yml:4); ")


def test_a_contradiction_of_three_names_all_three(merge_pip: MergePip) -> None:
    message = refusal(merge_pip, ["a>=1"], ["a<=1"], ["a!=1"])
    assert message.startswith("a.yml:3: a>=1 contradicts a<=1 (b.yml:3) and a!=1 (c.yml:3); no version")


def test_a_requirement_that_contradicts_itself_is_refused(merge_pip: MergePip) -> None:
    assert refusal(merge_pip, ["a>2,<1"]) == "a.yml:3: no version satisfies a>2,<1; correct it"


def test_an_address_beside_a_version_is_a_warning(merge_pip: MergePip) -> None:
    merged = merge_pip(["a @ https://host.example/a.zip"], ["a>=2"])
    assert lines(merged) == ["a @ https://host.example/a.zip", "a>=2"]
    assert merged.warnings[0].startswith("b.yml:3: whether a>=2 holds for a @ https://host.example/a.zip (a.yml:3)")


@pytest.mark.parametrize(
    "line",
    [
        f"git+https://host.example/x@{COMMIT}",
        f"git+ssh://git@host.example/x.git@{COMMIT}#subdirectory=tool&egg=x",
        f"x @ hg+https://host.example/x@{COMMIT}",
        "svn+https://host.example/x@2019#egg=x",
    ],
)
def test_addresses_pinned_to_a_commit_give_no_warning(merge_pip: MergePip, line: str) -> None:
    merged = merge_pip([line])
    assert lines(merged) == [line]
    assert merged.warnings == ()


@pytest.mark.parametrize("revision", ["", "@main", "@v1.0", f"@{COMMIT[:12]}"])
def test_addresses_that_may_change_give_a_warning(merge_pip: MergePip, revision: str) -> None:
    (warning,) = merge_pip([f"x @ git+https://host.example/x{revision}"]).warnings
    assert "is not pinned to a commit" in warning


@pytest.mark.parametrize("line", ["numpy=1.21", "numpy==", "numpy>=1.x", "two words", "git+git@host.example:x"])
def test_what_is_no_requirement_is_refused(merge_pip: MergePip, line: str) -> None:
    assert refusal(merge_pip, [line]).startswith(f"a.yml:3: {line} is no pip requirement; write for example")


@pytest.mark.parametrize("line", ["a @ file:///x/a.whl", "git+file:///x/a.git", "a @ ./a.whl"])
def test_addresses_of_this_machine_are_refused(merge_pip: MergePip, line: str) -> None:
    assert f"{line} is a file on this machine" in refusal(merge_pip, [line])


@pytest.mark.parametrize(
    ("spec", "requirement"),
    [("numpy=1.21", "numpy==1.21.3"), ("numpy", "numpy==1"), ("numpy=1.21", "numpy===odd!"), ("numpy>=1.24", "numpy")],
)
def test_conda_and_pip_may_agree(tmp_path: Path, spec: str, requirement: str) -> None:
    environment = tmp_path / "environment.yml"
    environment.write_text(f"dependencies: ['{spec}', pip: ['{requirement}']]")
    assert CondaMerge().merge([EnvironmentFile(environment, 200, "e")]).warnings == ()


def test_conda_and_pip_are_not_compared_under_a_marker(tmp_path: Path) -> None:
    environment = tmp_path / "environment.yml"
    environment.write_text("dependencies: ['numpy=1.21', pip: ['numpy==2; python_version<\"3\"']]")
    assert CondaMerge().merge([EnvironmentFile(environment, 200, "e")]).warnings == ()


# --- version specifiers -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("answer", [is_unsatisfiable, no_boundary_satisfies])
@pytest.mark.parametrize(
    ("specifiers", "expected"),
    [
        ("", False),
        (">=1.2,<2", False),
        (">=2,<1", True),
        ("==1.2,!=1.2", True),
        ("==1.2,==1.2.0", False),
        ("==1.10.0,==1.10.0+cu113", False),
        ("==1.10.0+cpu,==1.10.0+cu113", True),
        (">1.0,<1.0.post1", True),
        (">=1.2rc1,<1.2", True),
        (">=1.2rc1,<1.2,==1.2.*", True),
        (">=1.2rc1,<=1.2,!=1.2", False),
        ("~=1.2,<1.2.1,!=1.2,!=1.2.0.1", False),
        (">=1,<=1,!=1", True),
        ("<1.0.0,>0.9", False),
        ("<0", True),
        ("===odd", False),
        ("===odd,===ODD", False),
        ("===odd,===other", True),
        ("===odd,>=1", True),
        ("===1.5,>=1", False),
        ("===1.5,>=2", True),
    ],
)
def test_which_specifiers_cannot_be_satisfied(
    answer: Callable[[SpecifierSet], bool], specifiers: str, expected: bool
) -> None:
    assert answer(SpecifierSet(specifiers)) is expected


@pytest.mark.skipif(not hasattr(SpecifierSet, "is_unsatisfiable"), reason="this version of packaging has no own answer")
def test_probing_boundaries_agrees_with_packaging() -> None:
    chance = random.Random(20240229)
    numbers = ["0", "1", "1.0", "1.0.0", "1.1", "1.2", "1.2.0", "1.2.1", "1.10", "2", "1!1.0"]
    numbers += ["1.2a1", "1.2rc1", "1.2.post1", "1.2.dev3", "1.2a1.post1", "1.2.post1.dev2"]
    answers: list[tuple[SpecifierSet, bool, bool]] = []
    while len(answers) < 400:
        conditions = []
        for _ in range(chance.randint(1, 5)):
            operator = chance.choice(["==", "!=", ">=", "<=", ">", "<", "~=", "==*", "!=*"])
            number = chance.choice(numbers)
            conditions.append(f"{operator[:2]}{number}.*" if operator.endswith("*") else f"{operator}{number}")
        try:
            specifiers = SpecifierSet(",".join(conditions))
        except InvalidSpecifier:  # 1.2a1.* and ~=1
            continue
        answers.append((specifiers, specifiers.is_unsatisfiable(), no_boundary_satisfies(specifiers)))
    assert [specifiers for specifiers, expected, probed in answers if expected != probed] == []
    assert 100 < sum(expected for _, expected, _ in answers) < 300
