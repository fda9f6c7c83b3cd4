"""Two rows of a leaderboard on the same test images: what one gets right and the other does not, from the predictions.

A name is a label and a tap (`bigan/code`), a label alone where it has one tap, and may stand behind a directory
(`runs/mnist/bigan/code`), so that rows of two directories can be compared. Only what was judged on the same images by
the same version and settings of a protocol is compared.
"""

import dataclasses
import difflib
import json
import typing as t
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from results import predictions, store, tables
from results.identity import (
    DatasetKey,
    EncoderKey,
    ProtocolKey,
    dataset_name,
    disambiguate,
    encoder_facts,
    encoder_key,
    protocol_facts,
    protocol_key,
)
from results.record import Definitions, Json, Record
from results.rows import headings
from results.statistics import (
    Correct,
    Estimate,
    Split,
    hierarchical_bootstrap,
    holm,
    holm_levels,
    mcnemar,
    mcnemar_over_seeds,
    split,
)

Format = t.Literal["table", "markdown", "json"]
Column = tuple[DatasetKey, ProtocolKey]
Answers = dict[int, np.ndarray[t.Any, np.dtype[np.bool_]]]  # of each seed (images,), whether it got them right
Counts = np.ndarray[t.Any, np.dtype[np.int64]]


class Incomparable(Exception):
    """Two names that do not name two rows with something in common; the message says what there is."""

    exit_code = 2


@dataclass(frozen=True)
class Pair:
    """One seed's model of either row: McNemar's test."""

    seed: int
    other_seed: int
    won: int  # images that the first alone got right
    lost: int
    p: float  # corrected for all pairs of all columns (Holm)


@dataclass(frozen=True)
class Comparison:
    """One row against another in one column. Fractions in 0..1; p-values are corrected for all columns (Holm)."""

    dataset: str  # with limit and split
    record: Record  # one of the first's, which names the data
    protocol: str  # label@version
    heading: str  # what tables call it
    first: str
    second: str
    means: tuple[float, float]
    difference: Estimate  # its interval has the level of its step of Holm's, so it leaves out 0 exactly if p <= 0.05
    over: str  # what may be new: "images", or "seeds and images"
    images_p: float  # of these trained models on new images: McNemar's over all pairs of seeds
    pairs: tuple[Pair, ...]
    splits: tuple[Split, Split]
    seeds: tuple[int, int]
    right: Counts = field(repr=False, compare=False)  # (2, images): how many seeds of each got the image right

    @property
    def net(self) -> np.ndarray[t.Any, np.dtype[np.float64]]:
        """(images,): by which share more of the first's seeds are right than of the second's."""
        share: np.ndarray[t.Any, np.dtype[np.float64]] = self.right[0] / self.seeds[0] - self.right[1] / self.seeds[1]
        return share

    @property
    def won(self) -> int:
        return int((self.net > 0).sum())

    @property
    def lost(self) -> int:
        return int((self.net < 0).sum())

    def plain(self) -> dict[str, Json]:
        """As JSON has it."""
        return {
            "dataset": self.dataset, "protocol": self.protocol, "first": self.first, "second": self.second,
            "seeds": list(self.seeds), "images": self.right.shape[1], "means": list(self.means),
            "difference": self.difference.mean, "low": self.difference.low, "high": self.difference.high,
            "p": self.difference.p, "over": self.over, "images_p": self.images_p, "won": self.won, "lost": self.lost,
            "pairs": [vars(pair) for pair in self.pairs],
            "deviation_over_test_sets": [one.test for one in self.splits],
            "deviation_over_seeds": [one.seed for one in self.splits],
            "deviation_of_pretraining": [one.pretraining for one in self.splits],
            "deviation_of_the_probe": [one.probe for one in self.splits],
            "deviation_of_the_subset": [one.subset for one in self.splits],
        }  # fmt: skip


def compare(
    first: str, second: str, directory: Path, *, protocols: t.Collection[str] = (), datasets: t.Collection[str] = ()
) -> list[Comparison]:
    """The first row against the second in every column that both have, or in those of these names.

    Raises Incomparable for names that name no two such rows, StoreError for a directory or predictions that cannot be
    read.
    """
    two, one = _find(second, directory, first), _find(first, directory)  # a second name left out is seen before that
    if one == two:
        raise Incomparable(f"{first!r} and {second!r} are the same row; name two")
    shared = {column: one.example(column) for column in sorted(one.columns) if column in two.columns}
    if not shared:
        raise Incomparable(f"{one.name} and {two.name} were judged on nothing in common: {one.judged}; {two.judged}")
    chosen = [
        (data, protocol)
        for data, protocol in shared
        if (not protocols or {protocol.label, protocol.name} & set(protocols))
        and (not datasets or {shared[data, protocol].dataset, data.name} & set(datasets))
    ]
    if not chosen:
        wanted = ", ".join([*protocols, *datasets])
        raise Incomparable(f"{one.name} and {two.name} have nothing of {wanted} in common: {one.judged}; {two.judged}")
    facts = {protocol: protocol_facts(record) for (_, protocol), record in shared.items()}
    full = disambiguate({protocol: (protocol.name, settings) for protocol, settings in facts.items()})
    heads = headings({protocol: (full[protocol], settings) for protocol, settings in facts.items()})
    names = (first, second) if one.name == two.name else (one.name, two.name)  # of two directories
    compared, both = [], []
    for column in chosen:
        record, draw = shared[column], ", first draw" * ("top1" not in shared[column].metrics)
        answers = one.answers(column), two.answers(column)
        splits = one.split(column, answers[0]), two.split(column, answers[1])
        called = full[column[1]] + draw, heads[column[1]] + draw
        compared.append(_compared(called, record, names, answers, splits))
        both.append((_stacked(answers[0]), _stacked(answers[1])))
    return _corrected(compared, both)


# ---- names to rows ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Row:
    """The newest record of each seed in each column, with the directory of its run."""

    name: str
    columns: dict[Column, dict[int, tuple[Record, Path]]]

    def example(self, column: Column) -> Record:
        return next(iter(self.columns[column].values()))[0]

    def answers(self, column: Column) -> Answers:
        """Raises StoreError for predictions that are not what was scored."""
        return {seed: predictions.of(*run).correct for seed, run in sorted(self.columns[column].items())}

    def split(self, column: Column, answers: Answers) -> Split:
        (by, _), *_ = repeated = [predictions.repeated(self.columns[column][seed][0]) for seed in answers]
        return split(np.stack(list(answers.values())), [values for _, values in repeated], by)

    @property
    def judged(self) -> str:
        return f"{self.name} has {', '.join(dict.fromkeys(f'{key.name} on {data.name}' for data, key in self.columns))}"


def _find(name: str, directory: Path, before: str = "ROW") -> _Row:
    """The row of a name, in the directory that it begins with or else in this one; `before`: the name in front."""
    place, rest = _split(name, directory)
    contents = store.read_store(place)
    done = [record for record in contents.records if record.predictions and predictions.share(record) is not None]
    if not done:
        raise Incomparable(f"{place} has no row with a prediction for every test image")
    done = Definitions(contents.plans).newest(done)
    encoders = disambiguate({encoder_key(record): (record.label, encoder_facts(record)) for record in done})
    runs = {(run.parent.parent.name, run.name): run for run in (path.parents[2] for path in contents.whole)}
    rows: dict[tuple[EncoderKey, str], dict[Column, dict[int, tuple[Record, Path]]]] = defaultdict(
        lambda: defaultdict(dict)
    )
    for record in sorted(done, key=lambda record: record.provenance.started):
        run = runs[record.label, f"seed{record.seed}-{record.key}"]
        column = (DatasetKey(dataset_name(record), record.fingerprint), protocol_key(record))
        rows[encoder_key(record), str(record.tap)][column][record.seed] = record, run
    names = {(key, tap): f"{encoders[key]}/{tap}" for key, tap in rows}
    alone = len(encoders) == 1  # a path can end in the label's directory
    meant = [row for row in rows if names[row] == rest] or [
        row for row in rows if rest == encoders[row[0]] or (alone and rest in (row[1], ""))
    ]
    if len(meant) == 1:
        return _Row(names[meant[0]], {column: dict(seeds) for column, seeds in rows[meant[0]].items()})
    listed = ", ".join(sorted(names[row] for row in meant or rows))
    if name and not rest:
        raise Incomparable(
            f"{name} is a directory of several rows; wanted one: compare {before} ROW {name}, of {listed}"
        )
    if meant:
        raise Incomparable(f"{name!r} has several taps; wanted one of {listed}")
    close = difflib.get_close_matches(rest, {*names.values(), *encoders.values()}, 1)
    near = f" (did you mean {close[0]!r}?)" if close else ""
    raise Incomparable(f"no row {rest!r} in {place}{near}; there are {listed}")


def _split(name: str, directory: Path) -> tuple[Path, str]:
    """The longest directory with results that a name begins with, and what follows; else `directory` and the name."""
    parts = name.split("/")
    for end in range(len(parts), 0, -1):
        beginning = "/".join(parts[:end])
        if beginning.strip("/") and Path(beginning).is_dir() and next(Path(beginning).rglob("scores/*/*.json"), None):
            return Path(beginning), "/".join(parts[end:])
    return directory, name


# ---- answers to numbers -----------------------------------------------------------------------------------------


def _compared(
    protocol: tuple[str, str],
    record: Record,
    names: tuple[str, str],
    answers: tuple[Answers, Answers],
    splits: tuple[Split, Split],
) -> Comparison:
    """A comparison whose p-values are not corrected yet.

    Seeds of the same number meet in McNemar's tests; of rows with none in common, in their order.
    """
    first, second = answers
    common = [seed for seed in first if seed in second]
    meeting = list(zip(common, common)) or list(zip(first, second))
    correct, other = _stacked(first), _stacked(second)
    ones, twos = np.stack([first[seed] for seed, _ in meeting]), np.stack([second[seed] for _, seed in meeting])
    images_p = mcnemar_over_seeds(ones, twos)
    # of one seed it is this one model; what the seeds of the other row do makes the interval wider
    over = "images" if min(len(correct), len(other)) == 1 else "seeds and images"
    pairs = []
    for (seed, other_seed), one, two in zip(meeting, ones, twos):
        won, lost = int((one & ~two).sum()), int((two & ~one).sum())
        pairs.append(Pair(seed, other_seed, won, lost, mcnemar(won, lost)))
    return Comparison(
        dataset_name(record), record, *protocol, *names, (float(correct.mean()), float(other.mean())),
        hierarchical_bootstrap(correct, other), over, images_p, tuple(pairs), splits,
        (len(correct), len(other)), np.stack([correct.sum(0), other.sum(0)]),
    )  # fmt: skip


def _stacked(answers: Answers) -> Correct:
    return np.stack(list(answers.values()))


def _corrected(compared: list[Comparison], both: list[tuple[Correct, Correct]]) -> list[Comparison]:
    """With p-values corrected for all columns, and intervals of the levels at which these p are decided."""
    p_values = [one.difference.p for one in compared]
    differences = [
        dataclasses.replace(hierarchical_bootstrap(*answers, confidence=level), p=p)
        for answers, level, p in zip(both, holm_levels(p_values), holm(p_values))
    ]
    images = holm([one.images_p for one in compared])
    pairs = iter(holm([pair.p for one in compared for pair in one.pairs]))
    return [
        dataclasses.replace(
            one,
            difference=difference,
            images_p=images_p,
            pairs=tuple(dataclasses.replace(pair, p=next(pairs)) for pair in one.pairs),
        )
        for one, difference, images_p in zip(compared, differences, images)
    ]


# ---- comparisons to text ----------------------------------------------------------------------------------------


HEADER = ("dataset", "protocol", "first", "second", "difference", "95 % interval", "p", "won", "lost")
PAIRS = ("dataset", "protocol", "seeds", "won", "lost", "p")
SPREAD = ("dataset", "protocol", "row", "test sets", "seeds", "pretraining", "probe", "subset")
WORDS = ("dataset", "protocol", "seeds", "row")


def render(
    comparisons: t.Sequence[Comparison],
    format: Format,
    *,
    details: bool = False,
    width: int | None = None,
    colour: bool = False,
) -> str:
    """The comparisons as text that ends with a newline: fractions in `json`, else percent and points.

    `details`: each pair of seeds and the spread of either row, too, which `json` always has.
    """
    if format == "json":
        return json.dumps([one.plain() for one in comparisons], indent=2, ensure_ascii=False) + "\n"
    title = f"{comparisons[0].first} (first) against {comparisons[0].second} (second)"
    title += f", {', '.join(dict.fromkeys(one.protocol for one in comparisons))}"
    spread = [
        [
            one.dataset,
            one.heading,
            name,
            *("-" if part is None else f"{100 * part:.2f}" for part in vars(one.splits[side]).values()),
        ]
        for one in comparisons
        for side, name in enumerate((one.first, one.second))
    ]
    beside = [
        (
            "McNemar's exact test of each pair of seeds:",
            PAIRS,
            [_pair(one, pair) for one in comparisons for pair in one.pairs],
        ),
        ("The standard deviation of one accuracy, in points:", SPREAD, spread),
    ]
    parts = [("", HEADER, [_cells(one) for one in comparisons]), *(beside if details else [])]
    verdicts, legend = [_verdict(one) for one in comparisons], _legend(comparisons, details)
    if format == "markdown":
        (_, first), *others = [(about, tables.markdown(WORDS, header, rows)) for about, header, rows in parts]
        return "\n".join([f"**{title}**\n", first, *(f"{one}\n" for one in [*verdicts, legend]),
                          *(f"{about}\n\n{rows}" for about, rows in others)])  # fmt: skip
    (_, first), *others = [
        (about, tables.table(WORDS, header, rows, width=width, colour=colour)) for about, header, rows in parts
    ]
    prose = [line for one in (*verdicts, "", legend) for line in tables.wrapped(one, width) or [""]]
    return "\n".join([title, first, *prose, *(f"\n{about}\n{rows}" for about, rows in others)]).rstrip("\n") + "\n"


def _cells(one: Comparison) -> list[str]:
    found = one.difference
    return [
        one.dataset, one.heading, f"{100 * one.means[0]:.2f}", f"{100 * one.means[1]:.2f}", f"{100 * found.mean:+.2f}",
        f"{100 * found.low:+.2f} to {100 * found.high:+.2f}", _p(found.p), str(one.won), str(one.lost),
    ]  # fmt: skip


def _pair(one: Comparison, pair: Pair) -> list[str]:
    seeds = str(pair.seed) if pair.seed == pair.other_seed else f"{pair.seed} and {pair.other_seed}"
    return [one.dataset, one.heading, seeds, str(pair.won), str(pair.lost), _p(pair.p)]


def _verdict(one: Comparison) -> str:
    """A sentence that says which models it speaks of."""
    better, worse = (one.first, one.second) if one.difference.mean > 0 else (one.second, one.first)
    where, verdict = f"{one.dataset}, {one.heading}", f"{better} is better than {worse}"
    if one.over == "images":
        verdict = verdict if one.difference.p <= 0.05 else "no difference can be told"
        return f"{where}: {verdict} of these two models on new images; one seed tells nothing of others."
    if one.difference.p <= 0.05:
        return f"{where}: {verdict}, with new seeds on new images."
    models = f"; of these trained models {verdict} on new images (p {_p(one.images_p)})" * (one.images_p <= 0.05)
    return f"{where}: no difference can be told with new seeds on new images{models}."


def _legend(comparisons: t.Sequence[Comparison], details: bool) -> str:
    legend = "Top1 in percent, differences in points. Interval and p: a bootstrap over images, paired"
    if any(max(one.seeds) > 1 for one in comparisons):
        legend += ", and over the seeds of rows with two or more"
    legend += "; both corrected for the number of columns (Holm)" * (len(comparisons) > 1)
    legend += "; the interval leaves out 0 if p is at most 0.05."
    legend += " Won and lost: images that more of the first's seeds got right, or fewer."
    if not details:
        return f"{legend} --details: each pair of seeds, and what makes either row's score vary."
    legend += " p of a pair of seeds: corrected for all pairs (Holm)." * (
        sum(len(one.pairs) for one in comparisons) > 1
    )
    legend += " Standard deviations: over test sets, from the images of this one; over seeds on this one, and of that"
    legend += " pretraining, the probe's own initial weights and orders (told by its repeats), and the draw of labels"
    legend += " (told by the draws); - where the runs do not tell."
    return legend


def _p(p: float) -> str:
    return "< 0.0001" if p < 1e-4 else f"{p:.4f}"
