"""What the missing runs of a suite will cost, from what this machine was seen to do: time, memory, disk.

What a run of the same recipe took here before is believed. The rest is tried for a few seconds each: a training runs
until its speed shows, and everything else on two sizes of a part of the data, from which the whole is extrapolated.
"""

import contextlib
import dataclasses
import heapq
import json
import resource
import sys
import tempfile
import time
import typing as t
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from bench import data, extract, machine, resolve, run, views
from bench.diagnostics import diagnose
from bench.run import PlannedRun, Settings
from bench.suite import ProtocolSpec
from encoders.base import Encoder, Features, Generative, ImageSet, Progress, Training, frozen, shown
from encoders.training import SETTLE_BATCHES
from protocols.base import FeatureSet
from protocols.generative import CLASSIFIER_IMAGES, SIGMAS, GenerativeQuality, log_densities, train_classifier
from results.record import Record
from results.store import Contents, RunDirectory

TRIAL_SECONDS = 2.0  # that a training is watched
SIZES = (1000, 4000)  # images of the two parts that everything else is tried on
TRIED = 100  # images of either part that are tried on where their number is no matter
PAIRS = frozenset({"knn", "retrieval"})  # protocols that compare every test row with every training row
RECORD_BYTES = 5_000  # beside its predictions, about a byte an image
PICTURED = 300  # images in the pictures of one run, at about a byte a pixel


@dataclasses.dataclass(frozen=True)
class Cost:
    """Of a run, or of several."""

    seconds: float
    memory: int  # bytes, at the highest
    disk: int  # bytes that stay
    passing: int  # bytes more while a run goes on: features, checkpoints


def of_suite(costs: t.Sequence[Cost], jobs: int) -> Cost:
    """Of runs in this order, so many at a time: each begins as soon as one has ended."""
    busy = [0.0] * jobs
    for cost in costs:
        heapq.heapreplace(busy, busy[0] + cost.seconds)
    memory, passing = (
        sum(heapq.nlargest(jobs, amounts)) for amounts in ([c.memory for c in costs], [c.passing for c in costs])
    )
    return Cost(max(busy), memory, sum(cost.disk for cost in costs), passing)


class Forecast:
    """Costs of runs; what was once measured is used again."""

    def __init__(self, settings: Settings, contents: Contents, say: t.Callable[[str], None]) -> None:
        self.settings, self.say = settings, say
        self.device = machine.pick_device(settings.device)
        self.here = machine.provenance(self.device, settings.threads, "").device
        self.records = [one for one in contents.records if one.status == "done" and self._made_here(one)]
        self.fits: dict[tuple[str, ...], float] = {}
        self.scores: dict[tuple[t.Any, ...], float] = {}
        self.modules: dict[tuple[str, ...], tuple[nn.Module, nn.Module | None]] = {}
        self.extracted: dict[tuple[str, ...], float] = {}
        self.once = 0.0  # seconds that are taken once, and count with the run at hand
        self.unknown: dict[str, None] = {}  # protocols that are not counted, as they were never run here
        machine.prepare(settings.threads)

    def cost(self, planned: PlannedRun) -> Cost:
        """Of what is missing of a run. Measures where nothing is known; raises what the run would raise at once."""
        spec = planned.spec
        recipe, dataset = run.recipe(spec, self.settings), run.load_data(spec, self.settings)
        name = (
            spec.encoder.name,
            json.dumps(spec.encoder.params, sort_keys=True),
            planned.fingerprint,
            planned.precision,
        )
        if name not in self.modules:
            with torch.random.fork_rng():
                module = frozen(recipe.build(dataset.train.shape)).to(self.device)
                generator = recipe.build_generator(dataset.train.shape) if isinstance(recipe, Generative) else None
            self.modules[name] = module, generator
        module, generator = self.modules[name]
        rows = len(dataset.train) + len(dataset.test)
        seconds = 0.0
        if not planned.directory.run_json.exists():
            seconds += self._fit(name, planned, recipe, dataset, module)
        seconds += self._extract(name, spec.encoder.label, recipe, dataset, module)
        features = _features(module, dataset, SIZES[1], self.device)
        for tap, protocol in planned.missing:
            seconds += self._score(planned, dataset, tap, protocol, features)
        for tap in features[0]:
            if not planned.directory.neighbours(tap).exists():
                seconds += self._look(planned, dataset, tap, features)
        seconds, self.once = seconds + self.once, 0.0
        widths = {tap: part.shape[1] for tap, part in features[0].items()}
        wide = 4 * rows * sum(widths.values())
        weights = sum(tensor.nbytes for tensor in module.state_dict().values())
        weights += sum(tensor.nbytes for tensor in generator.state_dict().values()) if generator else 0
        pixels = dataset.train.images.nbytes + dataset.test.images.nbytes
        judged = max((widths.get(tap, 0) for tap, _ in planned.missing), default=0)
        return Cost(
            seconds,
            memory=_resident() + 2 * pixels + wide + min(2 * 4 * judged * len(dataset.train), 2**32) + 6 * weights,
            disk=weights
            + (RECORD_BYTES + len(dataset.test)) * len(planned.missing)
            + (PICTURED * dataset.test.images[0].nbytes if generator else 0)
            + sum(min(views.POINTS, len(dataset.test)) * 4 * min(width, views.DIMENSIONS) for width in widths.values()),
            passing=wide + 8 * weights,
        )

    def _made_here(self, record: Record) -> bool:
        made = record.provenance
        return made.device == self.here and made.threads == self.settings.threads

    def _known(self, planned: PlannedRun) -> t.Iterator[Record]:
        """Records of the same recipe on the same data, of whatever seed, that were made on this machine."""
        spec = planned.spec
        for record in self.records:
            made = (record.encoder, record.encoder_version, record.code, record.params, record.fingerprint)
            ours = (
                spec.encoder.name,
                spec.encoder_version,
                spec.encoder.code,
                spec.encoder.params,
                planned.fingerprint,
            )
            how = (record.provenance.precision, record.provenance.ranks)
            if (made, how) == (ours, (planned.precision, self.settings.ranks)):
                yield record

    # ---- fitting ----

    def _fit(
        self, name: tuple[str, ...], planned: PlannedRun, recipe: Encoder, dataset: data.Dataset, module: nn.Module
    ) -> float:
        if name not in self.fits:
            known = [record.seconds["fit"] for record in self._known(planned) if "fit" in record.seconds]
            self.fits[name] = known[-1] if known else self._try_fit(name, planned, recipe, dataset, module)
        return self.fits[name]

    def _try_fit(
        self, name: tuple[str, ...], planned: PlannedRun, recipe: Encoder, dataset: data.Dataset, module: nn.Module
    ) -> float:
        self.say(f"trying {planned.spec.encoder.label} on {planned.spec.dataset.label}")
        started = time.perf_counter()
        torch.optim.Adam([nn.Parameter(torch.zeros(1))])  # the first optimizer of a process imports torch's compiler
        self.once += time.perf_counter() - started
        images = shown(dataset.pretraining, recipe, planned.spec.seed)

        def fit(count: int, seconds: float) -> "_Trial":
            some = dataclasses.replace(
                images,
                images=images.images[:count],
                labels=None if images.labels is None else images.labels[:count],
            )
            trial = _Trial(seconds)
            training = Training(planned.spec.seed, self.device, planned.precision, trial.report, keeper=trial)
            with contextlib.suppress(KeyboardInterrupt):
                recipe.fit(some, training)
            trial.end()
            return trial

        if not fit(min(SIZES[0], len(images)), 0.0).is_training:
            return _whole(lambda count: fit(count, 0.0).seconds, len(images))
        seconds = fit(len(images), TRIAL_SECONDS).whole
        if any(isinstance(layer, nn.modules.batchnorm._BatchNorm) for layer in module.modules()):
            settled = min(len(images), 128 * SETTLE_BATCHES)
            seconds += self._extract(name, "", recipe, dataset, module) * settled / (len(images) + len(dataset.test))
        return seconds

    # ---- extracting, looking, scoring ----

    def _extract(
        self, name: tuple[str, ...], label: str, recipe: Encoder, dataset: data.Dataset, module: nn.Module
    ) -> float:
        def extracted(count: int) -> float:
            some = dataclasses.replace(dataset.train, images=dataset.train.images[:count], labels=None)
            started = time.perf_counter()
            for _ in extract.extract(label, module, some, recipe.taps, self.device):
                pass
            return time.perf_counter() - started

        if name not in self.extracted:
            whole = _whole(extracted, len(dataset.train))
            self.extracted[name] = whole * (1 + len(dataset.test) / len(dataset.train))
        return self.extracted[name]

    def _look(self, planned: PlannedRun, dataset: data.Dataset, tap: str, features: tuple[Features, Features]) -> float:
        """At a tap's features: their views and their alarms, which read no more rows than the part that is tried."""
        place = (views.keep, features[0][tap].shape[1], planned.fingerprint)
        if place not in self.scores:
            parts = {"train": dataset.train, "test": dataset.test}
            sets = {part: _feature_set(parts[part], some[tap], len(some[tap])) for part, some in zip(parts, features)}
            started = time.perf_counter()
            with tempfile.TemporaryDirectory() as place_of_views:
                views.keep(RunDirectory(Path(place_of_views)), tap, sets, parts)
            diagnose(sets["train"].features)
            self.scores[place] = time.perf_counter() - started
        return self.scores[place]

    def _score(
        self,
        planned: PlannedRun,
        dataset: data.Dataset,
        tap: str,
        protocol: ProtocolSpec,
        features: tuple[Features, Features],
    ) -> float:
        for record in self._known(planned):
            if (record.tap, record.protocol, record.protocol_params) == (tap, protocol.name, protocol.params):
                return record.seconds["score"]
        kind = resolve.protocols(self.settings.plugins)[protocol.name]
        if issubclass(kind, GenerativeQuality):
            return self._judge(kind.model_validate_json(json.dumps(protocol.params)), dataset)
        if not kind.features_only:  # judged in ways that no part of it foretells
            self.unknown[protocol.label] = None
            return 0.0
        width = features[0][tap].shape[1]
        place = (protocol.name, json.dumps(protocol.params, sort_keys=True), width, planned.fingerprint)
        if place not in self.scores:
            self.say(f"trying {protocol.label} on {width} features")
            judge = kind.model_validate_json(json.dumps(protocol.params))

            def scored(count: int) -> float:
                train, test = (
                    _feature_set(part, rows[tap], max(count * len(part) // len(dataset.train), 2))
                    for part, rows in zip((dataset.train, dataset.test), features)
                )
                started = time.perf_counter()
                judge.score(train, test, seed=planned.spec.seed)
                return time.perf_counter() - started

            self.scores[place] = _whole(scored, len(dataset.train), pairs=protocol.name in PAIRS)
        return self.scores[place]

    def _judge(self, judge: GenerativeQuality, dataset: data.Dataset) -> float:
        """Of samples; what of all this takes time is the classifier, and the distances from images to samples."""
        place = (judge.model_dump_json(), dataset.fingerprint)
        if place not in self.scores:
            self.say(f"trying what judges samples on {dataset.name}")
            train, test = (
                _feature_set(part, torch.from_numpy(np.array(part.images[:TRIED])).flatten(1) / 255, TRIED)
                for part in (dataset.train, dataset.test)
            )

            def trained(count: int) -> float:
                started = time.perf_counter()
                train_classifier(train, dataset.train.shape, count)
                return time.perf_counter() - started

            def compared(count: int) -> float:
                started = time.perf_counter()
                log_densities(test.features, torch.rand(count, test.features.shape[1]), SIGMAS)
                return (time.perf_counter() - started) / len(test)

            images = min(judge.validation, len(dataset.train)) + len(dataset.test) / 5  # these with one width of ten
            self.scores[place] = _whole(trained, CLASSIFIER_IMAGES) + images * _whole(compared, judge.samples)
        return self.scores[place]


class _Trial:
    """Watches a training for so many seconds and stops it; an `encoders.checkpoint.Keeper` that keeps nothing."""

    circumstances: t.ClassVar[dict[str, str]] = {}

    def __init__(self, seconds: float) -> None:
        self.limit = seconds
        self.started = time.perf_counter()
        self.seconds = 0.0
        self.is_training = False
        self.seen: list[tuple[float, float]] = []  # seconds since the start, fraction done

    def report(self, progress: Progress) -> None:
        self.seen.append((time.perf_counter() - self.started, progress.fraction))

    @property
    def stopping(self) -> bool:
        if not self.limit:
            return True
        return bool(self.seen) and time.perf_counter() - self.started >= self.limit

    def due(self) -> bool:
        return False

    def keep(self, step: int, content: bytes) -> None:
        pass

    def kept(self, largest: int) -> t.Iterator[bytes]:  # noqa: ARG002
        return iter(())

    def accept(self, circumstances: dict[str, str]) -> None:
        pass

    def unusable(self, problem: str) -> None:
        pass

    def listening(self) -> contextlib.AbstractContextManager[None]:
        self.is_training = True
        return contextlib.nullcontext()

    def end(self) -> None:
        self.seconds = time.perf_counter() - self.started

    @property
    def whole(self) -> float:
        """Seconds that the training takes in all."""
        (first, before), (last, done) = self.seen[0], self.seen[-1]
        if done >= 1:
            return self.seconds
        if len(self.seen) == 1:
            return first / before
        return first + (last - first) / (done - before) * (1 - before)


def _whole(seconds_of: t.Callable[[int], float], count: int, *, pairs: bool = False) -> float:
    """Seconds for so many images, from those for two parts of them; measured where there are no more than that.

    They grow with the images, or with their square, above what any part takes.
    """
    small, large = (min(size, count) for size in SIZES)
    first = seconds_of(small)
    if large == small:
        return first
    first = min(first, seconds_of(small))  # the first call of all warms up
    second = seconds_of(large)
    work = [float(size) ** (2 if pairs else 1) for size in (small, large, count)]
    return second + max(second - first, 0.0) / (work[1] - work[0]) * (work[2] - work[1])


def _features(module: nn.Module, dataset: data.Dataset, count: int, device: torch.device) -> tuple[Features, Features]:
    """Of so many training images, and of the same share of the test images."""
    share = min(count / len(dataset.train), 1.0)
    found = []
    for part in (dataset.train, dataset.test):
        some = np.array(part.images[: max(int(share * len(part)), 2)])
        with torch.no_grad():
            batches = [module(images.to(device)) for images in torch.split(torch.from_numpy(some), 256)]
        found.append({tap: torch.cat([batch[tap].float().cpu() for batch in batches]) for tap in batches[0]})
    return found[0], found[1]


def _feature_set(images: ImageSet, rows: Tensor, count: int) -> FeatureSet:
    assert images.labels is not None
    return FeatureSet(rows[:count], torch.from_numpy(np.array(images.labels[:count])), len(images.classes))


def _resident() -> int:
    """Bytes that this process has taken at most: what libraries and a trial need is among them."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
