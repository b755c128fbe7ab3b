"""Selection of a run's candidate: which candidates are evaluated, by what, and what does not compare."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from innereye_core import SelectionOptions, select
from innereye_core.errors import InputError, UsageError
from innereye_core.host import Host

MODEL_YAML = """\
schema_version: 1
model_name: Toy
structures: [{name: bright}]
image_channels: [ct]
network: {factory: toy_innereye.networks:Threshold}
inference: {crop_size_zyx: [4, 8, 8]}
"""


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run without checkpoints and without scores."""
    folder = tmp_path / "run"
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "model.yaml").write_text(MODEL_YAML)
    return folder


def add_epochs(run: Path, *epochs: int, garbage: bool = False) -> None:
    """Add checkpoints; the toy network of epoch N has the threshold N / 10."""
    for epoch in epochs:
        content = json.dumps({"epoch": epoch, "weights": {"threshold": epoch / 10}})
        path = run / "checkpoints" / f"{epoch}_checkpoint.pth.tar"
        path.write_text("\x00 no checkpoint at all" if garbage else content)


def add_metrics(run: Path, epoch: int, dice: Mapping[str, object]) -> None:
    path = run / f"epoch_{epoch:03d}" / "Val" / "metrics.csv"
    path.parent.mkdir(parents=True)
    rows = [f"{subject},bright,{value}" for subject, value in dice.items()]
    path.write_text("\n".join(["Patient,Structure,Dice", *rows]) + "\n")


def add_images(run: Path, *subjects: str) -> None:
    """Add validation images on which the epoch 5 (threshold 0.5) is best."""
    image = {"image": [0.1, 0.45, 0.55, 0.9], "mask": [0, 0, 1, 1]}
    (run / "validation_images.json").write_text(json.dumps(dict.fromkeys(subjects, image)))


# --- without evaluation -----------------------------------------------------------------------------------------------


def test_one_candidate_is_not_evaluated(run: Path, host: Host, opened: list[str]) -> None:
    add_epochs(run, 4, garbage=True)

    selection = select(run, host=host)

    assert (selection.selected.epoch, selection.evaluated, opened) == (4, False, [])
    assert math.isnan(selection.score)


def test_one_candidate_that_is_left_by_epochs_to_test_is_not_evaluated(run: Path, host: Host) -> None:
    add_epochs(run, 1, 2, 3)
    selection = select(run, SelectionOptions(epochs_to_test=(2,)), host=host)
    assert (selection.selected.epoch, selection.evaluated) == (2, False)


@pytest.mark.parametrize(("policy", "epochs", "chosen"), [("last", None, 3), ("epoch", (2,), 2)])
def test_policies_that_need_no_scores_evaluate_nothing(
    run: Path, host: Host, opened: list[str], policy: str, epochs: tuple[int, ...] | None, chosen: int
) -> None:
    add_epochs(run, 1, 2, 3, garbage=True)

    selection = select(run, SelectionOptions(epochs, policy), host=host)

    assert (selection.selected.epoch, selection.policy, selection.evaluated) == (chosen, policy, False)
    assert opened == []


def test_policy_epoch_with_several_candidates(run: Path, host: Host) -> None:
    add_epochs(run, 1, 2)
    with pytest.raises(UsageError, match="exactly one candidate"):
        select(run, SelectionOptions(policy="epoch"), host=host)


# --- ready-made scores ------------------------------------------------------------------------------------------------


def test_with_scores_for_all_no_checkpoint_is_opened(run: Path, host: Host, opened: list[str]) -> None:
    add_epochs(run, 1, 2, 3, garbage=True)
    for epoch, dice in ((1, 0.5), (2, 0.9), (3, 0.7)):
        add_metrics(run, epoch, {"p1": dice, "p2": dice})

    selection = select(run, host=host)

    assert (selection.selected.epoch, selection.evaluated, opened) == (2, True, [])
    assert [scored.score for scored in selection.candidates] == pytest.approx([0.5, 0.9, 0.7])


def test_dice_that_is_not_defined_does_not_count(run: Path, host: Host) -> None:
    add_epochs(run, 1, 2)
    add_metrics(run, 1, {"p1": "", "p2": 0.4})
    add_metrics(run, 2, {"p1": "nan", "p2": 0.6})
    selection = select(run, host=host)
    assert (selection.selected.epoch, selection.score) == (2, 0.6)


def test_no_epoch_with_a_defined_dice(run: Path, host: Host) -> None:
    add_epochs(run, 1, 2)
    for epoch in (1, 2):
        add_metrics(run, epoch, {"p1": "nan"})
    with pytest.raises(InputError, match=r"no epoch \(1, 2\) has a defined validation Dice"):
        select(run, host=host)


def test_scores_of_epochs_that_are_no_candidates_do_not_matter(run: Path, host: Host) -> None:
    add_epochs(run, 1, 2, 3)
    for epoch, dice in ((1, 0.5), (2, 0.6), (3, 0.9)):
        add_metrics(run, epoch, {"p1": dice})
    assert select(run, SelectionOptions(epochs_to_test=(1, 2)), host=host).selected.epoch == 2


# --- evaluation -------------------------------------------------------------------------------------------------------


def test_candidates_without_scores_are_evaluated(run: Path, host: Host, opened: list[str]) -> None:
    add_epochs(run, 3, 5, 8)
    add_images(run, "p1", "p2")

    selection = select(run, host=host)

    assert selection.selected.epoch == 5
    assert [scored.score for scored in selection.candidates] == pytest.approx([0.8, 1.0, 2 / 3])
    assert opened == ["3_checkpoint.pth.tar", "5_checkpoint.pth.tar", "8_checkpoint.pth.tar"]


def test_only_candidates_without_ready_scores_are_evaluated(run: Path, host: Host, opened: list[str]) -> None:
    add_epochs(run, 3, 5)
    add_metrics(run, 3, {"p1": 0.25})
    add_images(run, "p1")

    selection = select(run, host=host)

    assert [scored.score for scored in selection.candidates] == pytest.approx([0.25, 1.0])
    assert opened == ["5_checkpoint.pth.tar"]


def test_scores_for_only_some_where_the_rest_cannot_be_evaluated(run: Path, host: Host) -> None:
    add_epochs(run, 1, 2, 30)
    add_metrics(run, 1, {"p1": 0.5})
    add_metrics(run, 2, {"p1": 0.5})
    with pytest.raises(InputError, match=r"nothing can score epoch 30 .* or give epoch_030/Val/metrics\.csv"):
        select(run, host=host)


def test_broken_checkpoint_among_those_evaluated(run: Path, host: Host) -> None:
    add_epochs(run, 3)
    add_epochs(run, 5, garbage=True)
    add_images(run, "p1")
    with pytest.raises(InputError, match=r"5_checkpoint\.pth\.tar: is no toy checkpoint"):
        select(run, host=host)


@pytest.mark.parametrize("other", [{"p1": 0.5}, {"p1": 0.5, "p3": 0.5}], ids=["fewer", "others"])
def test_epochs_scored_on_different_subjects_do_not_compare(run: Path, host: Host, other: dict[str, float]) -> None:
    add_epochs(run, 1, 2)
    add_metrics(run, 1, {"p1": 0.5, "p2": 0.5})
    add_metrics(run, 2, other)
    with pytest.raises(InputError, match=r"epochs 1 and 2 were scored on different subjects \('p[23]' is in one"):
        select(run, host=host)


def test_ready_scores_and_own_evaluation_on_different_subjects_do_not_compare(run: Path, host: Host) -> None:
    add_epochs(run, 3, 5)
    add_metrics(run, 3, {"p1": 0.5})
    add_images(run, "p1", "p2")
    with pytest.raises(InputError, match=r"different subjects \('p2'"):
        select(run, host=host)


def test_order_of_subjects_does_not_matter(run: Path, host: Host) -> None:
    add_epochs(run, 1, 2)
    add_metrics(run, 1, {"p1": 0.5, "p2": 0.5})
    add_metrics(run, 2, {"p2": 0.6, "p1": 0.6})
    assert select(run, host=host).selected.epoch == 2


def test_progress_is_told_of_every_candidate(run: Path, host: Host) -> None:
    from contextlib import contextmanager

    add_epochs(run, 3, 5)
    add_images(run, "p1")
    told: list[object] = []

    class Watch:
        @contextmanager
        def track(self, description, total):
            told.append((description, total))
            yield told.append

    select(run, host=host, progress=Watch())

    assert told == [("validation", 2), 1, 1]


# --- what the config says ---------------------------------------------------------------------------------------------


def test_epochs_to_test_of_the_config(run: Path, host: Host) -> None:
    (run / "model.yaml").write_text(f"{MODEL_YAML}epochs_to_test: [1, 3]\n")
    add_epochs(run, 1, 2, 3)
    assert [c.epoch for c in select(run, SelectionOptions(policy="last"), host=host).candidates] == [1, 3]


def test_epochs_asked_for_win_over_those_of_the_config(run: Path, host: Host) -> None:
    (run / "model.yaml").write_text(f"{MODEL_YAML}epochs_to_test: [1, 3]\n")
    add_epochs(run, 1, 2, 3)
    options = SelectionOptions(epochs_to_test=(2,))
    assert [c.epoch for c in select(run, options, host=host).candidates] == [2]


@pytest.fixture
def lightning_run(run: Path) -> Path:
    (run / "checkpoints" / "last.ckpt").write_text(json.dumps({"epoch": 3, "weights": {"threshold": 0.5}}))
    return run


def test_lightning_checkpoints_need_a_named_stitching(lightning_run: Path, host: Host) -> None:
    with pytest.raises(InputError, match=r"inference\.stitching: must be named in the model config"):
        select(lightning_run, host=host)


@pytest.mark.parametrize("stitching", ["average", "crop", "gaussian"])
def test_lightning_checkpoints_with_a_named_stitching(lightning_run: Path, host: Host, stitching: str) -> None:
    text = MODEL_YAML.replace("8, 8]", f"8, 8], stitching: {stitching}")
    (lightning_run / "model.yaml").write_text(text)
    assert select(lightning_run, host=host).selected.epoch == 3


# --- policies and evaluators of plugins -------------------------------------------------------------------------------

WORST = """
    from innereye_core import hookimpl

    class Worst:
        name = "worst"
        needs_scores = True

        def choose(self, candidates):
            return min(candidates, key=lambda candidate: candidate.score).epoch

    class Invented(Worst):
        name = "invented"

        def choose(self, candidates):
            return 77

    @hookimpl
    def innereye_policies():
        return [Worst, Invented]
"""


@pytest.fixture
def scored_run(run: Path) -> Path:
    add_epochs(run, 1, 2)
    add_metrics(run, 1, {"p1": 0.9})
    add_metrics(run, 2, {"p1": 0.2})
    return run


def test_policy_of_a_plugin(scored_run: Path, toy: Path, install: Callable[..., str]) -> None:
    install("acme", WORST)
    selection = select(scored_run, SelectionOptions(policy="worst"), host=Host())
    assert (selection.policy, selection.selected.epoch) == ("worst", 2)


def test_policy_that_chooses_what_is_not_there(scored_run: Path, toy: Path, install: Callable[..., str]) -> None:
    install("acme", WORST)
    with pytest.raises(InputError, match=r"policy 'invented' chose epoch 77, which is none of the candidates"):
        select(scored_run, SelectionOptions(policy="invented"), host=Host())


def test_evaluator_cannot_overrule_the_scores_of_one_before_it(
    scored_run: Path, toy: Path, install: Callable[..., str]
) -> None:
    install(
        "acme",
        """
        from innereye_core import hookimpl
        from innereye_core.model import SubjectScore

        class Generous:
            name = "generous"
            priority = 50

            def evaluate(self, run, config, candidates, extra_code, providers, progress):
                return {epoch: [SubjectScore("p1", {"bright": 1.0})] for epoch in (1, 2, 3)}

        @hookimpl
        def innereye_evaluators():
            return [Generous]
        """,
    )
    add_epochs(scored_run, 3)
    selection = select(scored_run, host=Host())
    assert [scored.score for scored in selection.candidates] == [0.9, 0.2, 1.0]


# --- the run ----------------------------------------------------------------------------------------------------------


def test_run_that_is_not_there(tmp_path: Path, host: Host) -> None:
    with pytest.raises(
        InputError, match=r"nowhere: no such run; give the folder that has model\.yaml and checkpoints/"
    ):
        select(tmp_path / "nowhere", host=host)


def test_run_without_a_config(run: Path, host: Host) -> None:
    (run / "model.yaml").unlink()
    add_epochs(run, 1)
    with pytest.raises(InputError, match=r"run/model\.yaml: no such file"):
        select(run, host=host)


def test_fold_takes_the_config_of_its_parent(run: Path, host: Host) -> None:
    fold = run / "0"
    (fold / "checkpoints").mkdir(parents=True)
    add_epochs(fold, 6)
    assert select(fold, host=host).selected.epoch == 6


def test_config_of_a_fold_wins_over_its_parents(run: Path, host: Host) -> None:
    fold = run / "0"
    (fold / "checkpoints").mkdir(parents=True)
    (fold / "model.yaml").write_text(f"{MODEL_YAML}epochs_to_test: [2]\n")
    add_epochs(fold, 1, 2)
    assert select(fold, host=host).selected.epoch == 2


def test_extra_code_that_is_not_there(run: Path, host: Host, tmp_path: Path) -> None:
    add_epochs(run, 1)
    with pytest.raises(InputError, match=r"code: no such extra code directory"):
        select(run, SelectionOptions(extra_code_directory=tmp_path / "code"), host=host)


def test_extra_code_of_the_config_that_links_out_of_the_run(run: Path, host: Host, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (run / "yourcode").symlink_to(tmp_path / "elsewhere")
    (run / "model.yaml").write_text(f"{MODEL_YAML}extra_code_directory: yourcode\n")
    add_epochs(run, 1)
    with pytest.raises(
        InputError, match=r"model\.yaml: extra_code_directory: .*yourcode links out of the run's folder"
    ):
        select(run, host=host)
