"""Scores images that are text files of numbers: one label per number."""

from __future__ import annotations

from innereye_core.errors import InputError, MissingPluginError
from innereye_core.model import Check, ScoreResult, StructureVolume


class ToyScorer:
    name = "toy-text"

    def score(self, request, providers, progress):
        if request.runtime not in ("auto", "toy") or request.device == "cuda":
            raise MissingPluginError(f"no runtime {request.runtime!r} for {request.device}: pip install toy-gpu")
        others = [request.posteriors, request.uncertainty, *request.statistics, request.preview, request.report]
        kept = [path for path in others if path is not None]
        kept += [] if request.replace_segmentation else [request.output]
        existing = [path for path in kept if path.exists() and not request.overwrite]
        if existing:
            raise InputError(f"{existing[0]} exists already; give --overwrite")
        networks = providers.runtimes()[0].load(request.model, "cpu")
        channels = [[float(word) for word in path.read_text().split()] for path in request.images]
        means = [
            sum(network.foreground(list(values)) for network in networks) / len(networks)
            for values in zip(*channels, strict=True)
        ]
        if request.mask is not None:
            means = [mean * int(word) for mean, word in zip(means, request.mask.read_text().split(), strict=True)]
        labels = [int(mean > 0.5) for mean in means]
        request.output.write_text(" ".join(map(str, labels)))
        if request.posteriors is not None:
            request.posteriors.write_text(" ".join(map(str, means)))
        if request.posteriors_folder is not None:
            request.posteriors_folder.mkdir(exist_ok=True)
            (request.posteriors_folder / "bright.txt").write_text(" ".join(map(str, means)))
        for path in (request.uncertainty, *request.statistics, request.preview, request.report):
            if path is not None:
                path.write_text(f"{len(labels)} labels")
        return ScoreResult(
            segmentation=request.output,
            model=request.model_name,
            structures={
                name: StructureVolume(label, labels.count(label), labels.count(label) / 1000)
                for label, name in enumerate(request.model.config.structure_names, start=1)
            },
            checks=(Check("orientation", "unchecked", "text has none"), Check("numbers", "passed", "all finite")),
            seconds=0.25,
            runtime="toy",
            posteriors=request.posteriors or request.posteriors_folder,
            uncertainty=request.uncertainty,
            statistics=request.statistics,
            preview=request.preview,
            report=request.report,
            review=() if any(labels) else ("bright: not found, but 2 subjects have it",),
        )
