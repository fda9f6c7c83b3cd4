"""What the missing runs of a suite will cost, from what this machine was seen to do: time, memory, disk.

What a run of the same recipe took here before is believed. The rest is tried for a few seconds each: a training runs
until its speed shows, and everything else on two sizes of a part of the data, from which the whole is extrapolated.
"""

import contextlib
import dataclasses
import heapq
import json
import tempfile
import time
import typing as t
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from bench.datasets import Dataset, corruptions
from bench.host import machine
from bench.pipeline import extract, snapshots
from bench.pipeline.diagnostics import diagnose
from bench.pipeline.judge import feature_set
from bench.pipeline.plan import PlannedRun, Settings, load_images
from bench.pipeline.plan import recipe as read_recipe
from bench.pipeline.samples import SAMPLES
from bench.suites import resolve
from bench.suites.suite import ProtocolSpec
from encoders.base import Encoder, Features, Generative, ImageSet, Keeper, Progress, Training, frozen, visible_to
from encoders.batch_norm import ENCODER_BATCHES
from protocols import generative
from protocols.base import Corrupted, CorruptionProtocol, FeatureSet
from protocols.two_sample import TwoSample
from results.layout import RunDirectory
from results.record import Record
from results.store import Contents

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

    def __init__(
        self, settings: Settings, contents: Contents, say: t.Callable[[str], None], command: float, worker: float
    ) -> None:
        """command: seconds that it takes beside its runs. worker: until a process of a run is ready; 0 without such."""
        self.settings, self.say = settings, say
        self.device = machine.pick_device(settings.device)
        self.here = machine.provenance(self.device, settings.threads, "").device
        self.records = [one for one in contents.records if one.status == "done" and self._made_here(one)]
        self.fits: dict[tuple[str, ...], float] = {}
        self.scores: dict[tuple[t.Any, ...], float] = {}
        self.modules: dict[tuple[str, ...], tuple[nn.Module, nn.Module | None]] = {}  # the newest
        self.extracted: dict[tuple[str, ...], float] = {}
        self.features: dict[tuple[str, ...], tuple[Features, Features]] = {}  # of parts of train and test: the newest
        self.command, self.own_process = command, worker > 0
        self.once = worker  # seconds that a process takes once, and count with its first run
        self.unknown: dict[str, None] = {}  # protocols that are not counted, as they were never run here
        machine.prepare(settings.threads)
        self.resident = machine.resident()  # before any trial

    def cost(self, planned: PlannedRun) -> Cost:
        """Of what is missing of a run. Measures where nothing is known; raises what the run would raise at once."""
        spec = planned.spec
        recipe, dataset = read_recipe(spec, self.settings), load_images(spec.dataset, self.settings)
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
            self.modules = {name: (module, generator)}
        module, generator = self.modules[name]
        rows = len(dataset.train) + len(dataset.test)
        seconds = 0.0
        if not planned.directory.run_json.exists() and not spec.snapshot:  # whose training is that of its run
            seconds += self._fit(name, planned, recipe, dataset, module)
        seconds += self._extract(name, spec.encoder.label, recipe, dataset, module)
        some = _features(module, _images(dataset.train, 2), self.device)
        widths = {tap: rows.shape[1] for tap, rows in some.items()}
        for tap, protocol in planned.missing:
            seconds += self._score(name, planned, dataset, tap, protocol, widths.get(tap, 0))
        for tap, width in widths.items():
            if not planned.directory.neighbours(tap).exists():
                seconds += self._look(name, planned, dataset, tap, width)
        seconds += self.command + self.once
        self.command = 0.0  # counts with the first run
        if not self.own_process:
            self.once = 0.0
        wide = 4 * rows * sum(widths.values())
        weights = sum(tensor.nbytes for tensor in module.state_dict().values())
        weights += sum(tensor.nbytes for tensor in generator.state_dict().values()) if generator else 0
        pixels = dataset.train.images.nbytes + dataset.test.images.nbytes
        judged = max((widths.get(tap, 0) for tap, _ in planned.missing), default=0)
        copies = min(2 * 4 * judged * len(dataset.train), 2**32)  # of features, that a probe makes
        for samples in (protocol.params["samples"] for tap, protocol in planned.missing if tap == SAMPLES):
            floats = 5 * pixels + 2 * 8 * samples * dataset.test.images[0].nbytes  # of images and of samples
            copies = max(copies, floats + 4 * 8 * generative.BLOCK * samples)  # and the distances between some of them
        return Cost(
            seconds,
            memory=max(machine.resident(), self.resident + 2 * pixels + wide + copies + 6 * weights),
            disk=weights
            + (RECORD_BYTES + len(dataset.test)) * len(planned.missing)
            + (PICTURED * dataset.test.images[0].nbytes if generator else 0)
            + sum(
                min(snapshots.POINTS, len(dataset.test)) * 4 * min(width, snapshots.DIMENSIONS)
                for width in widths.values()
            ),
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
                spec.encoder.version,
                spec.encoder.code,
                spec.encoder.params,
                planned.fingerprint,
            )
            how = (record.provenance.precision, record.provenance.ranks)
            if (made, how) == (ours, (planned.precision, self.settings.ranks)):
                yield record

    # ---- fitting ----

    def _fit(
        self, name: tuple[str, ...], planned: PlannedRun, recipe: Encoder, dataset: Dataset, module: nn.Module
    ) -> float:
        if name not in self.fits:
            known = [record.seconds["fit"] for record in self._known(planned) if "fit" in record.seconds]
            self.fits[name] = known[-1] if known else self._try_fit(name, planned, recipe, dataset, module)
        return self.fits[name]

    def _try_fit(
        self, name: tuple[str, ...], planned: PlannedRun, recipe: Encoder, dataset: Dataset, module: nn.Module
    ) -> float:
        self.say(f"measuring {planned.spec.encoder.label} on {planned.spec.dataset.label}")
        started = time.perf_counter()
        torch.optim.Adam([nn.Parameter(torch.zeros(1))])  # the first optimizer of a process imports torch's compiler
        self.once += time.perf_counter() - started
        images = visible_to(dataset.pretraining, recipe, planned.spec.seed)

        def fit(count: int, seconds: float) -> "_Trial":
            some = dataclasses.replace(
                images, images=images.images[:count], labels=None if images.labels is None else images.labels[:count]
            )
            trial = _Trial(seconds)
            training = Training(planned.spec.seed, self.device, planned.precision, trial.report, keeper=trial)
            with contextlib.suppress(KeyboardInterrupt):
                recipe.fit(some, training)
            trial.end()
            return trial

        tried = [fit(min(SIZES[0], len(images)), 0.0)]
        if not tried[0].is_training:
            return self._whole(lambda count: (tried.pop() if tried else fit(count, 0.0)).seconds, len(images))
        seconds = fit(len(images), TRIAL_SECONDS).whole
        if any(isinstance(layer, nn.modules.batchnorm._BatchNorm) for layer in module.modules()):
            settled = min(len(images), 128 * ENCODER_BATCHES)
            seconds += self._extract(name, "", recipe, dataset, module) * settled / (len(images) + len(dataset.test))
        return seconds

    # ---- extracting, looking, scoring ----

    def _extract(
        self, name: tuple[str, ...], label: str, recipe: Encoder, dataset: Dataset, module: nn.Module
    ) -> float:
        def extracted(count: int) -> float:
            some = dataclasses.replace(dataset.train, images=dataset.train.images[:count], labels=None)
            started = time.perf_counter()
            for _ in extract.extract(label, module, some, recipe.taps, self.device):
                pass
            return time.perf_counter() - started

        if name not in self.extracted:
            place = (str(module), *(tuple(x.shape) for x in module.state_dict().values()), dataset.fingerprint)
            if place not in self.scores:  # many methods share an architecture
                whole = self._whole(extracted, len(dataset.train))
                self.scores[place] = whole * (1 + len(dataset.test) / len(dataset.train))
            self.extracted[name] = self.scores[place]
        return self.extracted[name]

    def _look(self, name: tuple[str, ...], planned: PlannedRun, dataset: Dataset, tap: str, width: int) -> float:
        """At a tap's features: their views and their alarms, which read no more rows than the part that is tried."""
        place = (snapshots.keep, width, planned.fingerprint)
        if place not in self.scores:
            parts = {"train": dataset.train, "test": dataset.test}
            sets = dict(zip(parts, self._parts(name, dataset, tap, SIZES[1])))
            started = time.perf_counter()
            with tempfile.TemporaryDirectory() as place_of_views:
                snapshots.keep(RunDirectory(Path(place_of_views)), tap, sets, parts)
            diagnose(sets["train"].features)
            self.scores[place] = time.perf_counter() - started
        return self.scores[place]

    def _score(
        self, name: tuple[str, ...], planned: PlannedRun, dataset: Dataset, tap: str, protocol: ProtocolSpec, width: int
    ) -> float:
        for record in self._known(planned):
            if (record.tap, record.protocol, record.protocol_params) == (tap, protocol.name, protocol.params):
                return record.seconds["score"]
        judge = protocol.recipe(resolve.protocols(self.settings.plugins))
        if isinstance(judge, generative.GenerativeQuality):
            return self._judge(judge, dataset)
        if isinstance(judge, TwoSample):  # a classifier for each generator, which looks at the images held out
            looked_at = min(judge.samples, 2 * len(dataset.test))
            return self._classifier(dataset) * (1 + looked_at / generative.CLASSIFIER_IMAGES / 3)
        withstands = isinstance(judge, CorruptionProtocol)
        if not judge.features_only and not withstands:  # judged in ways that no part of it foretells
            self.unknown[protocol.label] = None
            return 0.0
        place = (judge.model_dump_json(), protocol.name, (name, tap) if withstands else width, planned.fingerprint)
        if place not in self.scores:
            self.say(f"measuring {protocol.label} on {width} features")

            def scored(count: int) -> float:
                train, test = self._parts(name, dataset, tap, count)
                started = time.perf_counter()
                judge.score(train, test, seed=planned.spec.seed)
                return time.perf_counter() - started

            pairs = bool(PAIRS & {protocol.name, protocol.params.get("probe")})
            trial: t.Callable[[int], float] = scored
            more = 0.0
            if isinstance(judge, CorruptionProtocol):
                trial, more = self._withstood(judge, name, dataset, tap)
            self.scores[place] = self._whole(trial, len(dataset.train), pairs=pairs) + more
        return self.scores[place]

    def _withstood(
        self, judge: CorruptionProtocol, name: tuple[str, ...], dataset: Dataset, tap: str
    ) -> tuple[t.Callable[[int], float], float]:
        """Seconds of a fit on so many images and of the classes of damaged ones; those until all have features.

        What every kind of damage takes is tried at the middle one of its severities.
        """
        times = len(corruptions.SEVERITIES)
        severity = corruptions.SEVERITIES[times // 2]
        test = self._parts(name, dataset, tap, SIZES[1])[1]
        clean = _images(dataset.test, len(test))
        started = time.perf_counter()
        damaged = {kind: corruptions.corrupt(clean, kind, severity, seed=0) for kind in corruptions.KINDS}
        damage = (time.perf_counter() - started) * times * len(dataset.test) / len(test)
        rows = {kind: _features(self.modules[name][0], images, self.device)[tap] for kind, images in damaged.items()}

        def withstood(count: int) -> float:
            train, test = self._parts(name, dataset, tap, count)
            fitted = 0.0

            def corrupted() -> t.Iterator[Corrupted]:
                nonlocal fitted
                fitted = time.perf_counter()
                for kind, some in rows.items():
                    yield Corrupted(kind, severity, feature_set(some, dataset.test))

            started = time.perf_counter()
            judge.judge(train, test, corrupted(), seed=0)
            return fitted - started + times * (time.perf_counter() - fitted)

        share = len(dataset.test) / (len(dataset.train) + len(dataset.test))
        return withstood, damage + times * len(damaged) * share * self.extracted[name]

    def _parts(self, name: tuple[str, ...], dataset: Dataset, tap: str, count: int) -> tuple[FeatureSet, FeatureSet]:
        """Features of the first training images, at most SIZES[1], and of the same share of the test images."""
        parts = dataset.train, dataset.test
        if name not in self.features:
            first, second = (_images(part, _share(part, dataset.train, SIZES[1])) for part in parts)
            module = self.modules[name][0]
            self.features = {name: (_features(module, first, self.device), _features(module, second, self.device))}
        train, test = (
            feature_set(rows[tap][: _share(part, dataset.train, count)], part)
            for part, rows in zip(parts, self.features[name])
        )
        return train, test

    def _whole(self, seconds_of: t.Callable[[int], float], count: int, *, pairs: bool = False) -> float:
        whole, once = _whole(seconds_of, count, pairs=pairs)
        self.once += once
        return whole

    def _judge(self, judge: generative.GenerativeQuality, dataset: Dataset) -> float:
        """Of samples; what of all this takes time is the classifier, and the distances from images to samples.

        What the classifier looks at takes it forwards only: a third of a step of its training.
        """
        place = (judge.model_dump_json(), dataset.fingerprint)
        if place not in self.scores:
            classifier = self._classifier(dataset)
            self.once += classifier  # the same for all generators
            test = _pixels(dataset.test, generative.BLOCK)

            def compared(count: int, widths: t.Sequence[float]) -> float:
                started = time.perf_counter()
                generative.log_densities(test.features, torch.rand(count, test.features.shape[1]), widths)
                return (time.perf_counter() - started) / len(test)

            self.scores[place] = (
                classifier / generative.CLASSIFIER_IMAGES / 3 * (judge.samples + len(dataset.test))
                + min(judge.validation, len(dataset.train))
                * self._whole(lambda n: compared(n, generative.SIGMAS), judge.samples)
                + len(dataset.test) * self._whole(lambda n: compared(n, generative.SIGMAS[:1]), judge.samples)
            )
        return self.scores[place]

    def _classifier(self, dataset: Dataset) -> float:
        """The training of a small classifier of images, of however many classes."""
        place = (generative.train_classifier, dataset.fingerprint)
        if place not in self.scores:
            self.say(f"measuring the classifier of samples on {dataset.name}")
            train = _pixels(dataset.train, TRIED)

            def trained(count: int) -> float:
                started = time.perf_counter()
                generative.train_classifier(train, dataset.train.shape, count)
                return time.perf_counter() - started

            self.scores[place] = self._whole(trained, generative.CLASSIFIER_IMAGES)
        return self.scores[place]


class _Trial(Keeper):
    """Watches a training for so many seconds and stops it; keeps nothing."""

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


def _whole(seconds_of: t.Callable[[int], float], count: int, *, pairs: bool = False) -> tuple[float, float]:
    """Seconds for so many images, from those for two parts of them; measured where there are no more than that.

    They grow with the images, or with their square, above what any part takes. The second number is how much longer
    the first call of all took, such as to import what it needs; not looked for where that is little beside the rest.
    """
    small, large = (min(size, count) for size in SIZES)
    cold = seconds_of(small)
    first = min(cold, seconds_of(small)) if cold < TRIAL_SECONDS else cold
    once = cold - first
    if large == small:
        return first, once
    second = seconds_of(large)
    work = [float(size) ** (2 if pairs else 1) for size in (small, large, count)]
    return second + max(second - first, 0.0) / (work[1] - work[0]) * (work[2] - work[1]), once


def _share(part: ImageSet, train: ImageSet, count: int) -> int:
    """How many images of a part of the data stand beside so many of train."""
    return max(min(count, len(train)) * len(part) // len(train), 2)


def _images(part: ImageSet, count: int) -> Tensor:
    return torch.from_numpy(np.array(part.images[:count]))


@torch.no_grad()
def _features(module: nn.Module, images: Tensor, device: torch.device) -> Features:
    batches = [module(some.to(device)) for some in torch.split(images, 64)]
    return {tap: torch.cat([batch[tap].float().cpu() for batch in batches]) for tap in batches[0]}


def _pixels(images: ImageSet, count: int) -> FeatureSet:
    return feature_set(_images(images, count).flatten(1) / 255, images)
