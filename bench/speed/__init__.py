"""`frostbench speed`: what this harness does beside what people use instead, measured in turn in one call.

Times are medians over rounds of each contestant in turn. The limit of a job is the least time this machine could take:
the job's matrix products at the rate measured for large products in that precision, plus its unavoidable traffic at the
measured rate of memory. k-NN proves its answers without computing all products in float32, so it can beat a limit that
is of float32 products.
"""

import typing as t

from bench.speed import extract, probes, suite, train
from bench.speed.race import Case, Effort, Rates, Row, rates
from bench.speed.table import report, table

__all__ = ["FULL", "QUICK", "SECTIONS", "measure", "rates", "report", "table"]

QUICK = Effort(rounds=2, seconds=5, train_images=1280, gallery=10_000, queries=2_000, records=1_000, thorough=False)
FULL = Effort(rounds=5, seconds=30, train_images=3840, gallery=60_000, queries=10_000, records=10_000, thorough=True)
SECTIONS: dict[str, t.Callable[[Rates, Effort], list[Case]]] = {
    "train": train.cases,
    "extract": extract.cases,
    "linear": probes.linear_cases,
    "knn": probes.knn_cases,
    "suite": suite.cases,
}


def measure(
    sections: t.Sequence[str], at: Rates, effort: Effort, say: t.Callable[[str], None] = lambda _: None
) -> t.Iterator[Row]:
    """The rows of these sections, one case after the other. A case that fails is a row that says why."""
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped] # noqa: PLC0415 - scikit-learn's own

    with threadpool_limits(at.threads):  # scikit-learn and FAISS are to have as many threads as we have
        for section in sections:
            for case, rows in SECTIONS[section](at, effort):
                say(f"{section}: {case}")
                try:
                    yield from rows()
                except Exception as error:
                    yield Row(section, case, remark=f"failed: {type(error).__name__}: {error}", failed=True)
