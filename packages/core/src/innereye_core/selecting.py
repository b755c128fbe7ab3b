"""Selects the candidate of a run that is to be deployed, evaluating candidates where the policy needs it."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from innereye_core.candidates import list_candidates
from innereye_core.errors import InputError
from innereye_core.model import Candidate, Run, ScoredCandidate, Selection, SubjectScore

if TYPE_CHECKING:
    from innereye_core.config import ModelConfig
    from innereye_core.contract.providers import Progress
    from innereye_core.host import Host

_log = logging.getLogger(__name__)

DEFAULT_POLICY = "best_validation_dice"


def select_candidate(
    run: Run,
    config: ModelConfig,
    extra_code: Path | None,
    policy: str,
    epochs: Sequence[int] | None,
    host: Host,
    progress: Progress,
) -> Selection:
    """Select one candidate of a run.

    Args:
        run: the run.
        config: its model config.
        extra_code: folder with the network's own code, or None.
        policy: name of the selection policy.
        epochs: the only epochs to consider; None: those of the config, else all that have a checkpoint.
        host: what the plugins offer.
        progress: where to say how far it is.

    Raises:
        InputError: there is nothing to select from, or candidates cannot be compared.
        UsageError: there is no such policy.
    """
    rule = host.policy(policy)
    formats = host.checkpoint_formats()
    candidates = list_candidates(run, formats, config.epochs_to_test if epochs is None else epochs)
    _require_named_stitching(config, candidates, host, run)
    evaluated = rule.needs_scores and len(candidates) > 1
    if evaluated:
        scored = _evaluate(run, config, candidates, extra_code, host, progress)
    else:
        scored = tuple(ScoredCandidate(candidate) for candidate in candidates)
    epoch = candidates[0].epoch if rule.needs_scores and not evaluated else rule.choose(scored)
    chosen = [candidate for candidate in candidates if candidate.epoch == epoch]
    if not chosen:
        raise InputError(f"policy {policy!r} chose epoch {epoch!r}, which is none of the candidates; mend the policy")
    _log.info("policy %s chose epoch %d of %d", policy, epoch, len(candidates))
    return Selection(policy, chosen[0], scored, evaluated)


def _require_named_stitching(config: ModelConfig, candidates: Sequence[Candidate], host: Host, run: Run) -> None:
    ambiguous = {format.name for format in host.checkpoint_formats() if format.stitching_must_be_named}
    if config.inference.stitching is None and any(candidate.format in ambiguous for candidate in candidates):
        raise InputError(
            f"{run.folder}: inference.stitching: must be named in the model config, because toolboxes scored the same "
            "Lightning weights differently; InnerEye's Lightning checkpoints need 'crop'"
        )


def _evaluate(
    run: Run,
    config: ModelConfig,
    candidates: Sequence[Candidate],
    extra_code: Path | None,
    host: Host,
    progress: Progress,
) -> tuple[ScoredCandidate, ...]:
    scores: dict[int, Sequence[SubjectScore]] = {}
    for evaluator in host.evaluators():
        still_open = [candidate for candidate in candidates if candidate.epoch not in scores]
        if still_open:
            scores = {**evaluator.evaluate(run, config, still_open, extra_code, host, progress), **scores}
    missing = [candidate.epoch for candidate in candidates if candidate.epoch not in scores]
    if missing:
        raise InputError(
            f"{run.folder}: nothing can score epoch {missing[0]} on the validation set; install innereye-segmentation, "
            f"or give epoch_{missing[0]:03d}/Val/metrics.csv"
        )
    scored = tuple(ScoredCandidate(candidate, tuple(scores[candidate.epoch])) for candidate in candidates)
    _require_same_subjects(run, scored)
    return scored


def _require_same_subjects(run: Run, scored: Sequence[ScoredCandidate]) -> None:
    """Means over different subjects do not compare."""
    first = scored[0]
    expected = sorted(subject.subject for subject in first.subjects)
    for other in scored[1:]:
        subjects = sorted(subject.subject for subject in other.subjects)
        if subjects != expected:
            only = sorted(set(subjects) ^ set(expected)) or subjects
            raise InputError(
                f"{run.folder}: epochs {first.epoch} and {other.epoch} were scored on different subjects "
                f"({only[0]!r} is in one of them); make their metrics.csv and dataset.csv agree"
            )
