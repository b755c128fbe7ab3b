"""select, package, register and deploy on the command line: what they print, as text and as JSON."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Invoke = Callable[..., Any]
Install = Callable[..., str]


def test_select_marks_the_chosen_epoch_in_a_table(innereye: Invoke, run_folder: Path, toy: Path) -> None:
    assert innereye("select", run_folder).done().stdout.splitlines() == [
        "   epoch  Dice    bright",
        "   1      0.5000  0.5000",
        "→  2      0.9000  0.9000",
        "   3      0.7000  0.7000",
        f"epoch 2 by policy best_validation_dice: {run_folder}/checkpoints/2_checkpoint.pth.tar",
    ]


def test_select_shows_undefined_dice_as_a_dash(innereye: Invoke, run_folder: Path, toy: Path) -> None:
    lines = innereye("select", run_folder, "--epochs-to-test", "3").done().stdout.splitlines()
    assert lines[1].split() == ["→", "3", "–"]


def test_select_json(innereye: Invoke, run_folder: Path, toy: Path) -> None:
    document = innereye("select", run_folder, "--json").done().json

    assert document == {
        "policy": "best_validation_dice",
        "evaluated": True,
        "selected": {"epoch": 2, "checkpoints": [f"{run_folder}/checkpoints/2_checkpoint.pth.tar"]},
        "candidates": [
            {"epoch": epoch, "score": dice, "structures": {"bright": dice}, "subjects": ["p1", "p2"]}
            for epoch, dice in ((1, 0.5), (2, 0.9), (3, 0.7))
        ],
    }


def test_select_json_writes_null_for_what_is_not_defined(innereye: Invoke, run_folder: Path, toy: Path) -> None:
    document = innereye("select", run_folder, "--epochs-to-test", "3", "--json").done().json
    assert document["candidates"] == [{"epoch": 3, "score": None, "structures": {}, "subjects": []}]


def test_epochs_to_test_are_the_only_candidates(innereye: Invoke, run_folder: Path, toy: Path) -> None:
    document = innereye("select", run_folder, "--epochs-to-test", "3, 1,3", "--json").json
    assert [candidate["epoch"] for candidate in document["candidates"]] == [1, 3]


def test_package_prints_the_folder(innereye: Invoke, run_folder: Path, toy: Path) -> None:
    assert innereye("package", run_folder).done().stdout == f"{run_folder}/final_model\n"


def test_package_json(innereye: Invoke, run_folder: Path, toy: Path) -> None:
    document = innereye("package", run_folder, "--json").done().json

    checkpoint = {"path": "checkpoints/2_checkpoint.pth.tar", "epoch": 2, "fold": None, "score": 0.9}
    assert (document["package"], document["checkpoints"]) == (f"{run_folder}/final_model", [checkpoint])
    assert re.fullmatch(r"sha256:[0-9a-f]{64}", document["digest"])


def test_package_takes_its_options(innereye: Invoke, run_folder: Path, toy: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / f"{name}.yml").write_text(f"name: {name}\ndependencies: [python]\n")
    environments = ["--environment", tmp_path / "one.yml", "--environment", tmp_path / "two.yml"]

    innereye("package", run_folder, "--policy", "last", *environments, "--output", tmp_path / "out").done()

    made = tmp_path / "out" / "final_model"
    assert (made / "checkpoints" / "3_checkpoint.pth.tar").is_file()
    assert "name: two" in (made / "environment.yml").read_text()
    innereye("package", run_folder, "--output", tmp_path / "out").refused(5, "exists already")
    innereye("package", run_folder, "--output", tmp_path / "out", "--replace").done()
    assert (made / "checkpoints" / "2_checkpoint.pth.tar").is_file()


def test_package_of_an_ensemble(innereye: Invoke, folds: Path, toy: Path) -> None:
    assert innereye("package", folds, "--ensemble").done().stdout == f"{folds}/final_ensemble_model\n"


def test_register_prints_the_model_id(innereye: Invoke, packaged: Path) -> None:
    assert innereye("register", packaged).done().stdout == "Toy:1\n"
    assert innereye("register", packaged, "--name", "Mine").done().stdout == "Mine:1\n"


def test_register_json(innereye: Invoke, packaged: Path) -> None:
    run = json.loads((packaged.parent / "run.json").read_text())["id"]
    assert innereye("register", packaged, "--json").done().json == {
        "id": "Toy:1",
        "name": "Toy",
        "version": 1,
        "registry": "local",
        "run": run,
    }


def test_register_takes_tags_properties_and_a_description(innereye: Invoke, packaged: Path) -> None:
    options = ["--tag", "site=Basel", "--tag", "rule=a=b", "--property", "git=abc", "--description", "Good."]
    innereye("register", packaged, *options).done()

    shown = innereye("models", "show", "Toy:1", "--json").json
    assert (shown["tags"]["site"], shown["tags"]["rule"], shown["properties"]["git"]) == ("Basel", "a=b", "abc")
    assert shown["description"] == "Good."


def test_deploy_ends_with_the_model_id(innereye: Invoke, run_folder: Path, toy: Path) -> None:
    lines = innereye("deploy", run_folder).done().stdout.splitlines()
    assert lines[-2:] == [f"{run_folder}/final_model", "Toy:1"]
    assert lines[2].startswith("→  2")


def test_deploy_json_is_registration_package_and_selection(innereye: Invoke, run_folder: Path, toy: Path) -> None:
    selection = innereye("select", run_folder, "--json").json
    document = innereye("deploy", run_folder, "--json").done().json

    run = json.loads((run_folder / "run.json").read_text())["id"]
    assert document == {
        "id": "Toy:1",
        "name": "Toy",
        "version": 1,
        "registry": "local",
        "run": run,
        "package": f"{run_folder}/final_model",
        "selection": selection,
    }


def test_deploy_of_an_ensemble_ends_with_its_id(innereye: Invoke, folds: Path, toy: Path) -> None:
    lines = innereye("deploy", folds, "--ensemble").done().stdout.splitlines()
    assert [line for line in lines if line.startswith("Toy:")] == ["Toy:1", "Toy:2", "Toy:3", "Toy:4"]
    assert lines[-1] == "Toy:4"


def test_deploy_json_of_an_ensemble_has_the_children(innereye: Invoke, folds: Path, toy: Path) -> None:
    document = innereye("deploy", folds, "--ensemble", "--json").done().json

    assert (document["id"], document["package"]) == ("Toy:4", f"{folds}/final_ensemble_model")
    assert [child["id"] for child in document["children"]] == ["Toy:1", "Toy:2", "Toy:3"]
    assert [child["selection"]["selected"]["epoch"] for child in document["children"]] == [1, 2, 3]


def test_missing_fold_is_named_with_the_option_that_allows_it(innereye: Invoke, folds: Path, toy: Path) -> None:
    (folds / "1").rename(folds / "lost")
    innereye("deploy", folds, "--ensemble").refused(3, "fold 1 is not there", "--allow-missing-folds")
    assert innereye("deploy", folds, "--ensemble", "--allow-missing-folds").stdout.splitlines()[-1] == "Toy:3"


FAILING_OBSERVER = """
    from innereye_core import hookimpl

    @hookimpl
    def innereye_after_{what}({argument}):
        raise OSError("no mail today")
"""


@pytest.mark.parametrize(
    ("words", "what", "argument"),
    [("package", "package", "package"), ("deploy", "package", "package"), ("deploy", "registration", "model")],
)
def test_failed_observer_is_exit_code_1_and_the_result_stands(
    innereye: Invoke,
    run_folder: Path,
    toy: Path,
    install: Install,
    caplog: pytest.LogCaptureFixture,
    words: str,
    what: str,
    argument: str,
) -> None:
    install("acme", FAILING_OBSERVER.format(what=what, argument=argument))

    with caplog.at_level(logging.WARNING):
        outcome = innereye(words, run_folder)

    assert outcome.exit_code == 1
    assert outcome.stdout.splitlines()[-1] == (f"{run_folder}/final_model" if words == "package" else "Toy:1")
    assert "no mail today" in caplog.text
    innereye("models", "verify", run_folder / "final_model").done()


def test_failed_observer_of_register(innereye: Invoke, packaged: Path, install: Install) -> None:
    install("acme", FAILING_OBSERVER.format(what="registration", argument="model"))
    outcome = innereye("register", packaged)
    assert (outcome.exit_code, outcome.stdout) == (1, "Toy:1\n")
