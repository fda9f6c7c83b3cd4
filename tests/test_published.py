"""What this project prints as its own numbers can be made again from the records it keeps."""

import re
from pathlib import Path

import numpy as np
import pytest

from results.leaderboard import leaderboard
from results.store import read_store

ROOT = Path(__file__).resolve().parent.parent
UNTRACED = {"bigan_table1"}  # made from an export of a commit, which README names: there was no git to ask
SUITES = sorted(path.name for path in (ROOT / "results" / "published").iterdir() if path.is_dir())


@pytest.mark.parametrize("suite", SUITES)
def test_the_readmes_table_is_what_the_code_prints_from_the_records(suite: str) -> None:
    readme = (ROOT / "README.md").read_text()
    (printed,) = re.findall(f"<!-- {suite} -->\n(.*?)<!-- end -->", readme, re.DOTALL)
    contents = read_store(ROOT / "results" / "published" / suite)
    assert contents.damaged == []
    assert printed.strip() == leaderboard(contents.records).render("markdown").strip()


@pytest.mark.parametrize("suite", SUITES)
def test_published_records_come_from_a_commit_and_agree_with_their_predictions(suite: str) -> None:
    folder = ROOT / "results" / "published" / suite
    for record in read_store(folder).records:
        if suite not in UNTRACED:
            assert record.provenance.commit
            assert record.provenance.dirty is False
        if record.status == "failed":
            assert "became" in (record.error or "")  # a loss that diverged; other failures are not results
            continue
        if record.tap == "samples":
            assert record.predictions is None
            continue
        (run,) = folder.glob(f"{record.label}/*/seed{record.seed}-{record.key}")
        with np.load(run / str(record.predictions)) as kept:
            assert record.metrics["top1"] == pytest.approx((kept["predicted"] == kept["label"]).mean())
