"""Two rows compared image by image, from files made here with answers known by hand."""

import io
import json
import typing as t
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bench import datasets
from results import files, layout, store
from results.comparison import Incomparable, compare, render
from results.record import Provenance, Record
from results.statistics import holm

IMAGES = 360  # of the test set of digits


def put(directory: Path, label: str, correct: t.Sequence[t.Any], tap: str = "code", **changes: t.Any) -> None:
    """A row's records and predictions, a seed for each array of right and wrong answers."""
    for seed, right in enumerate(correct):
        truth = np.arange(len(right)) % 10
        predicted = np.where(right, truth, (truth + 1) % 10)
        run = layout.run_directory(directory, label, "digits", seed + changes.get("first_seed", 0), "0" * 16)
        made = {"commit": None, "dirty": None, "versions": {}, "device": "Test", "threads": 1}
        about: dict[str, t.Any] = {
            "suite": "s", "key": "0" * 16, "dataset": "digits", "split": "test", "limit": None, "fingerprint": "f" * 16,
            "train_images": 10, "test_images": len(right), "encoder": label, "label": label, "params": {},
            "encoder_version": 1, "is_control": False, "status": "done", "tap": tap, "dimensions": 2,
            "protocol": "linear", "protocol_label": "linear", "protocol_params": {}, "protocol_version": 1,
            "metrics": {"top1": float(np.mean(right))}, "seconds": {},
            "provenance": Provenance(**made, precision="float32", started="2025-01-01T00:00:00Z"),
        } | {name: value for name, value in changes.items() if name != "first_seed"}  # fmt: skip
        name = f"{about['protocol_label']}@{about['protocol_version']}"
        predictions = run.predictions(tap, name)
        buffer = io.BytesIO()
        np.savez(buffer, predicted=predicted, label=truth)
        files.replace(predictions, buffer.getvalue())
        record = Record(
            **about,
            seed=seed + changes.get("first_seed", 0),
            predictions=predictions.relative_to(run.path).as_posix(),
        )
        store.publish_record(run.record(tap, name), record)


def answers(wrong: t.Iterable[int]) -> t.Any:
    right = np.ones(IMAGES, bool)
    right[list(wrong)] = False
    return right


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """good: wrong on images 0-3. bad: on 4-43; its second seed on 4-53. two: good again, with another tap."""
    directory = tmp_path / "runs"
    put(directory, "good", [answers(range(4))] * 2)
    put(directory, "bad", [answers(range(4, 44)), answers(range(4, 54))], tap="last")
    put(directory, "two", [answers(range(4))])
    put(directory, "two", [answers(range(5))], tap="last")
    return directory


def test_what_is_won_and_lost_is_known(runs: Path) -> None:
    (found,) = compare("good", "bad", runs)
    assert (found.first, found.second, found.won, found.lost) == ("good/code", "bad/last", 50, 4)
    assert found.means == pytest.approx((1 - 4 / IMAGES, 1 - 45 / IMAGES))
    assert found.difference.mean == pytest.approx(41 / IMAGES)
    assert [(pair.won, pair.lost) for pair in found.pairs] == [(40, 4), (50, 4)]
    assert np.flatnonzero(found.net < 0).tolist() == [0, 1, 2, 3]
    assert found.right[:, 50].tolist() == [2, 1]
    assert found.over == "seeds and images"
    assert found.splits[0].seed == 0
    over_seeds = found.splits[1].seed
    assert over_seeds == pytest.approx(10 / IMAGES / 2**0.5)  # 40 and 50 errors


def test_the_other_way_round_is_the_same_with_other_signs(runs: Path) -> None:
    (one,), (two,) = compare("good", "bad", runs), compare("bad", "good", runs)
    assert two.difference.mean == pytest.approx(-one.difference.mean)
    assert (two.won, two.lost) == (one.lost, one.won)
    assert two.images_p == pytest.approx(one.images_p)


def test_one_seed_of_each_is_mcnemars_test_and_speaks_of_these_models(runs: Path) -> None:
    put(runs, "alone", [answers(range(4, 12))])
    (found,) = compare("two/code", "alone", runs)
    assert found.over == "images"
    assert found.images_p == pytest.approx(2 * sum([1, 12, 66, 220, 495]) / 2**12)  # 8 against 4 of 12
    assert found.difference.p == pytest.approx(found.images_p, abs=0.2)
    assert found.difference.low < 0 < found.difference.high
    assert "no difference can be told of these two models" in render([found], "table")


def test_the_draws_of_few_labels_and_the_repeats_of_a_probe_split_the_spread_of_seeds(runs: Path) -> None:
    draws = {"draws": [{"top1": 1 - 40 / IMAGES, "rows": 30}, {"top1": 1 - 60 / IMAGES, "rows": 30}]}
    for label, tap in (("good", "code"), ("bad", "last")):
        mean = {"mean_top1": 1 - 50 / IMAGES}
        told: dict[str, t.Any] = {"protocol": "fewshot", "protocol_label": "few", "metrics": mean, "details": draws}
        put(runs, label, [answers(range(40))] * 2, tap=tap, **told)
        repeats = {"repeats": draws["draws"]}
        put(runs, label, [answers(range(40))] * 2, tap=tap, protocol="mlp", protocol_label="mlp", details=repeats)
    few, linear, mlp = compare("good", "bad", runs)
    assert [few.protocol, linear.protocol, mlp.protocol] == ["few@1, first draw", "linear@1", "mlp@1"]
    spread = 20 / IMAGES / 2**0.5  # of 40 and 60 errors; the means of the seeds are equal
    for split in few.splits:
        assert (split.pretraining, split.probe) == (0, None)
        assert split.subset == pytest.approx(spread)
    for split in mlp.splits:
        assert (split.pretraining, split.subset) == (0, None)
        assert split.probe == pytest.approx(spread)
    assert (linear.splits[1].pretraining, linear.splits[1].probe, linear.splits[1].subset) == (None, None, None)
    lines = render([few], "markdown", details=True).splitlines()
    (line,) = [line for line in lines if line.startswith("| digits | few, first draw | bad/last |")]
    assert [cell.strip() for cell in line.split("|")[5:9]] == ["3.93", "0.00", "-", "3.93"]


def test_several_columns_are_corrected_together(runs: Path) -> None:
    for label, wrong in (("good", range(4)), ("bad", range(4, 16))):
        tap = "code" if label == "good" else "last"
        put(runs, label, [answers(wrong)] * 2, tap=tap, protocol="knn", protocol_label="knn", protocol_version=2)
    found = compare("good", "bad", runs)
    assert [one.protocol for one in found] == ["knn@2", "linear@1"]
    knn, linear = (compare("good", "bad", runs, protocols=[name])[0] for name in ("knn", "linear@1"))
    assert [one.images_p for one in found] == pytest.approx([knn.images_p, 2 * linear.images_p])  # 12 to 4, 50 to 4
    corrected = holm([knn.difference.p, linear.difference.p])
    assert [one.difference.p for one in found] == pytest.approx(corrected)
    smallest = min(pair.p for one in found for pair in one.pairs)
    assert smallest == pytest.approx(2 * min(pair.p for pair in linear.pairs))  # of 4 pairs, not of 2


def test_an_interval_leaves_out_zero_exactly_if_its_p_is_small(runs: Path) -> None:
    for name in ("linear", "knn"):
        for label, wrong in (("a", range(5)), ("b", range(5, 19))):
            put(runs, label, [answers(wrong)], protocol=name, protocol_label=name)
    (alone,) = compare("a", "b", runs, protocols=["knn"])  # 14 won, 5 lost
    assert 0.025 < alone.difference.p <= 0.05 and alone.difference.low > 0
    for one in compare("a", "b", runs):  # each with the level of the first of two of Holm's steps
        assert one.difference.p == pytest.approx(2 * alone.difference.p)
        assert one.difference.p > 0.05 and one.difference.low < 0


def test_rows_of_two_directories_and_paths_can_be_named(runs: Path, tmp_path: Path) -> None:
    put(tmp_path / "other", "good", [answers(range(40))])
    (found,) = compare(f"{runs}/good", f"{tmp_path}/other/good/code", tmp_path / "nowhere")
    assert (found.won, found.lost) == (36, 0)
    assert found.second == f"{tmp_path}/other/good/code"  # the same label twice would tell nothing
    assert compare("good", f"{runs}/two/last", runs)[0].second == "two/last"


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        ("two", "bad", "'two' has several taps; wanted one of two/code, two/last"),
        ("god", "bad", r"no row 'god' in .*runs \(did you mean 'good'\?\); there are bad/last, good/code"),
        ("good", "good/code", "are the same row; name two"),
        ("", "bad", "no row ''"),
        ("good/code/more", "bad", "no row 'good/code/more'"),
    ],
)
def test_names_that_name_no_two_rows_are_explained(runs: Path, first: str, second: str, message: str) -> None:
    with pytest.raises(Incomparable, match=message):
        compare(first, second, runs)


def test_a_directory_in_place_of_the_second_row_is_told_from_a_row(runs: Path, tmp_path: Path) -> None:
    with pytest.raises(
        Incomparable, match=r"is a directory of several rows; wanted one: compare good ROW .*runs, of bad/"
    ):
        compare("good", str(runs), tmp_path / "nowhere")
    put(tmp_path / "other", "good", [answers(range(40))])
    (found,) = compare(f"{runs}/good", f"{tmp_path}/other", tmp_path / "nowhere")  # it has one row, and so is one
    assert (found.won, found.lost) == (36, 0)


def test_columns_are_headed_as_in_the_leaderboard_and_versions_stand_above(runs: Path) -> None:
    for label in ("good", "bad"):
        settings: dict[str, t.Any] = {"protocol": "knn", "protocol_label": "near", "protocol_version": 2}
        settings["protocol_params"] = {"k": 5, "metric": "cosine"}
        put(runs, label, [answers(range(20))] * 2, tap={"good": "code", "bad": "last"}[label], **settings)
    found = compare("good", "bad", runs)
    text = render(found, "markdown")
    assert "| digits | near (k=5, cosine) |" in text and "digits, near (k=5, cosine): " in text
    assert text.splitlines()[0].endswith("linear@1, near@2**")
    assert [one["protocol"] for one in json.loads(render(found, "json"))] == ["linear@1", "near@2"]


@pytest.mark.parametrize(
    "changes",
    [{"protocol_version": 2}, {"fingerprint": "e" * 16}, {"limit": 360}, {"protocol_params": {"strength": 1}}],
)
def test_versions_settings_subsets_and_other_data_are_never_compared(runs: Path, changes: dict[str, t.Any]) -> None:
    put(runs, "other", [answers(range(9))], **changes)
    with pytest.raises(Incomparable, match="good/code and other/code were judged on nothing in common"):
        compare("good", "other", runs)


def test_versions_of_one_definition_are_compared(runs: Path) -> None:
    put(runs, "other", [answers(range(9))], protocol_version=2)
    protocol = {"name": "linear", "label": "linear", "equal_versions": [[2, 1]]}
    (runs / "suite.json").write_text(json.dumps({"suite": "s", "protocols": [protocol]}))
    (one,) = compare("good", "other", runs)
    assert (one.protocol, one.won, one.lost) == ("linear@2", 5, 0)


def test_a_protocol_that_is_not_shared_is_named(runs: Path) -> None:
    with pytest.raises(Incomparable, match="nothing of knn in common: good/code has linear@1 on digits"):
        compare("good", "bad", runs, protocols=["knn"])


@pytest.mark.parametrize("damage", ["gone", "torn", "no header", "other", "short", "bomb"])
def test_predictions_that_are_not_what_was_scored_are_refused(runs: Path, damage: str) -> None:
    (path, *_) = sorted(runs.glob("good/*/*/predictions/code/*.npz"))
    if damage == "gone":
        path.unlink()
    elif damage == "torn":
        path.write_bytes(path.read_bytes()[:100])
    elif damage == "no header":
        with zipfile.ZipFile(path) as archive:
            members = {name: archive.read(name) for name in archive.namelist()}
        with zipfile.ZipFile(path, "w") as archive:
            for name, content in members.items():
                archive.writestr(name, content.replace(b"}", b" ", 1))  # a header that does not end
    else:
        rows = {"other": IMAGES, "short": 10, "bomb": 10**6}[damage]
        np.savez_compressed(path, predicted=np.zeros(rows, int), label=np.zeros(rows, int))
    with pytest.raises(files.StoreError, match="predictions"):
        compare("good", "bad", runs)


def test_formats(runs: Path) -> None:
    found = compare("good", "bad", runs)
    (told,) = json.loads(render(found, "json"))
    assert (told["won"], told["lost"], told["seeds"], told["images"]) == (50, 4, [2, 2], IMAGES)
    assert told["low"] < told["difference"] < told["high"]
    table = render(found, "table", width=100)
    assert max(map(len, table.splitlines())) <= 100
    assert "good/code (first) against bad/last (second)" in table
    assert "+11.39" in table
    markdown = render(found, "markdown")
    assert "| digits | linear | 98.89 | 87.50 | +11.39 |" in markdown
    assert markdown.count("\n| --- |") == 1 and "McNemar" not in markdown and "--details" in markdown
    whole = render(found, "markdown", details=True)
    assert whole.count("\n| --- |") == 3 and "--details" not in whole


# ---- the command ------------------------------------------------------------------------------------------------


@pytest.fixture
def frostbench(
    runs: Path, frostbench: t.Callable[..., tuple[int, str, str]], monkeypatch: pytest.MonkeyPatch
) -> t.Callable[..., tuple[int, str, str]]:
    monkeypatch.delenv("FROSTBENCH_DATA", raising=False)
    return frostbench


def test_without_the_data_the_numbers_are_still_told(frostbench: t.Callable[..., tuple[int, str, str]]) -> None:
    status, out, err = frostbench("compare", "good", "bad", "--pictures", "won.png")
    assert status == 0
    assert "good/code is better than bad/last" in out
    assert "no pictures: digits has changed since it was scored" in err
    assert not Path("won.png").exists()


def test_pictures_are_drawn_only_where_they_are_asked_for(frostbench: t.Callable[..., tuple[int, str, str]]) -> None:
    before = set(Path().rglob("*"))
    assert frostbench("compare", "good", "bad")[0::2] == (0, "")
    status, out, err = frostbench("compare", "good", "bad", "--pictures", "won.jpg")
    assert (status, out) == (2, "") and "ends in .png" in err
    assert set(Path().rglob("*")) == before


def test_images_won_and_lost_are_drawn(runs: Path, frostbench: t.Callable[..., tuple[int, str, str]]) -> None:
    digits = datasets.load("digits")
    put(runs, "a", [answers(range(4))], fingerprint=digits.fingerprint)
    put(runs, "b", [answers(range(4, 44))], fingerprint=digits.fingerprint)
    status, _, err = frostbench("compare", "a", "b", "--pictures", "won.png", "--format", "json")
    assert status == 0
    assert "won.png shows 40 images won, 4 lost, digits, linear" in err
    drawn = np.asarray(Image.open("won.png").convert("L"))
    lost = digits.test.images[3, 0]  # the last of the four that were lost: kept sharp, so its pixels are in the picture
    enlarged = lost.repeat(9, 0).repeat(9, 1)
    places = [(y, x) for x in range(8, 8 + 80 * 4, 80) for y in range(drawn.shape[0] - 72)]
    assert any((drawn[y : y + 72, x : x + 72] == enlarged).all() for y, x in places)


def test_a_wrong_name_is_a_sentence_and_exit_code_2(frostbench: t.Callable[..., tuple[int, str, str]]) -> None:
    status, out, err = frostbench("compare", "goood", "bad")
    assert (status, out) == (2, "")
    assert "did you mean 'good'" in err
    assert frostbench("compare", "good", "bad", "nowhere")[0] == 2
