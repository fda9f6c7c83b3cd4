"""The report, from records and files with numbers known by hand; and in a real browser, where there is one."""

import dataclasses
import html.parser
import io
import re
import shutil
import sys
import time
import typing as t
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bench.__main__ import main
from results import files, layout, rows, store
from results.layout import RunDirectory
from results.leaderboard import leaderboard
from results.record import Alarm, Provenance, Record
from results.report import boards, charts, figures, page
from results.rows import Section

ROOT = Path(__file__).resolve().parent.parent
HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(2)>\" onmouseover='alert(3)"
SCORES = {  # encoder, tap: linear's, a seed each
    ("bigan", "code"): (0.95, 0.96, 0.97),
    ("bigan", "penultimate"): (0.89, 0.90, 0.91),
    ("aae", "code"): (0.93, 0.94, 0.95),
    ("pixels", "pixels"): (0.945, 0.945, 0.945),
}
LABELS = np.array([0, 0, 1, 1], np.uint8)
PREDICTED = np.array([0, 0, 1, 0], np.uint8)  # half of class 1 is taken for class 0


def record(label: str, tap: str, seed: int, top1: float, **changes: t.Any) -> Record:
    made = Provenance(
        commit="0123456789abcdef",
        dirty=False,
        versions={"python": "3.11"},
        device="Test CPU",
        threads=2,
        precision="float32",
        started="2025-01-01T00:00:00Z",
    )
    done: dict[str, t.Any] = {
        "suite": "small",
        "key": f"{sum(map(ord, label)):08x}{seed:08x}",
        "dataset": "mnist5k",
        "split": "test",
        "limit": None,
        "fingerprint": "f" * 16,
        "train_images": 4000,
        "test_images": 4,
        "encoder": label,
        "label": label,
        "params": {"epochs": 10},
        "encoder_version": 1,
        "is_control": label == "pixels",
        "seed": seed,
        "status": "done",
        "tap": tap,
        "dimensions": 50,
        "protocol": "linear",
        "protocol_label": "linear",
        "protocol_version": 2,
        "metrics": {"top1": top1},
        "predictions": f"predictions/{tap}/linear.npz",
        "seconds": {"fit": 10.0 * (1 + seed), "extract": 0.1, "score": 0.2},
        "provenance": made,
    }
    return Record(**done | changes)


def failed(label: str, seed: int, error: str) -> Record:
    nothing = dict.fromkeys(("tap", "protocol", "protocol_label", "protocol_version", "predictions"))
    changes = nothing | {"status": "failed", "error": error, "metrics": {}}
    return record(label, "code", seed, 0.0).model_copy(update=changes)


def publish(suite: Path, one: Record, directory: str = "") -> RunDirectory:
    run = layout.run_directory(suite, directory or one.label, "data", one.seed, one.key)
    if one.status == "failed":
        store.publish_record(run.failed, one)
    else:
        name = f"{one.protocol_label}-{one.protocol_params.get('k', 0)}".replace("/", "")
        store.publish_record(run.record(one.tap or "", name), one)
    return run


def arrays(path: Path, **named: t.Any) -> None:
    buffer = io.BytesIO()
    np.savez(buffer, **named)
    files.replace(path, buffer.getvalue())


def png(pixels: np.ndarray[t.Any, t.Any]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "png")
    return buffer.getvalue()


def build(directory: Path) -> Path:
    """Three encoders with three seeds; BiGAN has every file that a run can leave."""
    for (label, tap), scores in SCORES.items():
        for seed, top1 in enumerate(scores):
            run = publish(directory, record(label, tap, seed, top1))
            arrays(run.predictions(tap, "linear"), predicted=PREDICTED, label=LABELS)
            if label != "bigan":
                continue
            history = "epoch,seconds,images_per_second,discriminator_loss,generator_loss\n"
            history += "1,1.0,100.0,0.7,0.6\n2,1.0,300.0,0.5,0.9\n"
            files.replace(run.history, history.encode())
            spots = np.random.default_rng(0).normal(size=(40, 3)).astype(np.float32)
            arrays(
                run.view(tap),
                classes=np.array(["cat", "dog"]),
                points=np.arange(40),
                labels=np.arange(40) % 2,
                projection=spots,
                variance_shares=np.array([0.5, 0.2, 0.1]),
                queries=np.array([0, 1]),
                query_labels=np.array([0, 1]),
                neighbours=np.array([[0, 1], [2, 3]]),
                neighbour_labels=np.array([[0, 1], [1, 1]]),
                distances=np.array([[1.0, 2.0], [1.0, 2.0]]),
            )
            strip = np.arange(10 * 16, dtype=np.uint8).reshape(10, 16)  # 2 x 3 images of 4 x 4, a gap of 2
            files.replace(run.neighbours(tap), png(strip.repeat(3, 0).repeat(3, 1)))
            files.replace(run.pictures / "samples.png", png(strip))
    return directory


@pytest.fixture
def suite(tmp_path: Path) -> Path:
    return build(tmp_path)


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> str:
    return page(build(tmp_path_factory.mktemp("suite")))


class Outline(html.parser.HTMLParser):
    """Every element with its attributes; fails where one is not closed."""

    EMPTY = frozenset(("meta", "br", "wbr", "img", "input"))

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.words: dict[int, str] = {}  # of an element, by its place
        self.inside: list[int] = []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len(dict(attrs)) == len(attrs), f"<{tag}> says something twice"
        self.elements.append((tag, dict(attrs)))
        if tag not in self.EMPTY:
            self.open.append(tag)
            self.inside.append(len(self.elements) - 1)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag, f"</{tag}> closes something else, at {self.getpos()}"
        if tag in ("td", "th"):
            self.handle_data(" ")
        self.inside.pop()

    def handle_data(self, data: str) -> None:
        for place in self.inside:
            self.words[place] = self.words.get(place, "") + data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]

    def texts(self, tag: str) -> list[str]:
        """What stands in every element of this name, spaces made one."""
        places = [place for place, (name, _) in enumerate(self.elements) if name == tag]
        return [" ".join(self.words.get(place, "").split()) for place in places]


def prose(text: str) -> str:
    return " ".join(re.sub(r"<[^>]+>", " ", text).split())


# ---- what it says -----------------------------------------------------------------------------------------------


def test_the_table_has_the_leaderboards_rows(text: str) -> None:
    rows = [row for row in Outline(text).texts("tr") if re.match(r"\d+ (bigan|aae|pixels)", row)]
    without_statistics = [re.sub(r"\([\d.]+ to [\d.]+\) [\d-]+", "±", row) for row in rows]
    assert without_statistics == [
        "1 bigan code 96.00 ± 50 3 20.0",
        "2 pixels control pixels 94.50 ± 50 3 20.0",
        "3 aae code 94.00 ± 50 3 20.0",
        "4 bigan penultimate 90.00 ± 50 3 20.0",
    ]


def sections(records: list[Record], **changes: dict[str, t.Any]) -> list[Section]:
    """Of one dataset, where some rows, by encoder, say something else of their comparison."""
    return rows.sections(dataclasses.replace(row, **changes.get(row.encoder, {})) for row in leaderboard(records).rows)


THREE = [record("bigan", "code", 0, 0.96), record("aae", "code", 0, 0.95), record("pixels", "pixels", 0, 0.9)]
BEST = {"may_be_best": True, "tie": 1, "rank_low": 1, "rank_high": 2, "low": 0.95, "high": 0.98, "difference": 0.0}
CLOSE = {
    "may_be_best": True,
    "tie": 1,
    "rank_low": 1,
    "rank_high": 2,
    "difference": -0.01,
    "difference_low": -0.03,
    "difference_high": 0.01,
}
FAR = {
    "may_be_best": False,
    "tie": 2,
    "rank_low": 3,
    "rank_high": 3,
    "difference": -0.06,
    "difference_low": -0.09,
    "difference_high": -0.03,
}


def test_a_verdict_says_who_leads_and_whether_that_is_real() -> None:
    (section,) = sections(THREE, bigan=BEST, aae=CLOSE, pixels=FAR)
    (verdict,) = boards.verdicts(section)
    assert (verdict.winner, verdict.score, verdict.is_control) == ("bigan · code", "96.00", False)
    assert verdict.sentences == [
        "2 of 3 rows may be the best.",
        "aae · code, the next encoder, is 1.00 points behind, not told apart (95 % interval -1.00 to 3.00).",
        "The best control, pixels · pixels, is 6.00 points behind, told apart (95 % interval 3.00 to 9.00).",
    ]


def test_a_verdict_counts_the_rows_that_beat_their_own_untrained_network() -> None:
    gains = {
        "over_untrained": 0.02,
        "over_untrained_low": 0.015,
        "over_untrained_high": 0.025,
        "over_untrained_p": 0.001,
    }
    loses = {name: -value for name, value in gains.items()} | {"over_untrained_p": 0.001}
    (section,) = sections(THREE, bigan=BEST | gains, aae=CLOSE | loses, pixels=FAR)
    assert boards.verdicts(section)[0].sentences[-2:] == [
        "Of 2 trained rows with an untrained network of its own, 1 is significantly better than it, "
        "1 worse (Holm, 5 %).",
        "bigan · code gains most over its own: +2.00 ± 0.50 points.",
    ]
    assert "over untrained" in [field.title for field in boards.fields(section)]


def test_a_control_that_leads_is_beside_the_best_learned_encoder() -> None:
    (section,) = sections([*THREE[1:], record("bigan", "code", 0, 0.8)], aae=FAR | {"difference": -0.01})
    (section,) = rows.sections(dataclasses.replace(one, is_control=not one.is_control) for one in section.rows)
    (verdict,) = boards.verdicts(section)
    assert verdict.is_control
    wanted = "pixels · pixels, the best learned encoder, is"
    assert any(sentence.startswith(wanted) for sentence in verdict.sentences)


def test_a_verdict_without_intervals_says_that_one_seed_cannot_tell() -> None:
    unknown = dict.fromkeys(("may_be_best", "tie", "rank_low", "rank_high", "difference_low", "difference_high"))
    (section,) = sections(THREE[:2], bigan=unknown, aae=unknown)
    (verdict,) = boards.verdicts(section)
    assert verdict.sentences == [
        "aae · code, the next encoder, is 1.00 points behind; one seed cannot tell it from chance.",
        "There is no control to compare with.",
    ]


def test_a_row_is_never_compared_with_itself_where_means_tie() -> None:
    first, second = (record(label, "code", 0, 0.9, test_images=500) for label in "ba")
    later = second.provenance.model_copy(update={"started": "2025-01-02T00:00:00Z"})  # so `a` stands above, `b` is best
    (section,) = sections([first, second.model_copy(update={"provenance": later})])
    (verdict,) = boards.verdicts(section)
    other = "a" if verdict.winner.startswith("b") else "b"
    (sentence,) = [one for one in verdict.sentences if "level" in one]
    assert sentence.startswith(f"{other} · code, the next encoder, is level, not told apart (95 % interval -")
    assert "-0.00" not in sentence


def test_no_interval_goes_beyond_what_a_difference_can_be() -> None:
    wide = CLOSE | {"difference_low": -9.0, "difference_high": 9.0}
    (section,) = sections(THREE, bigan=BEST, aae=wide, pixels=FAR)
    assert "(95 % interval -100.00 to 100.00)" in boards.verdicts(section)[0].sentences[1]


def test_what_metrics_are_about_has_a_section_each() -> None:
    units = {"effective_rank": 40.0, "uniformity": -2.0}
    space = record("bigan", "code", 0, 0, protocol="geometry", protocol_label="geometry", metrics=units)
    made = record("bigan", "samples", 0, 0, protocol="generative", protocol_label="made", metrics={"parzen": 80.0})
    found = sections([*THREE, space, made])
    assert [boards.heading(section) for section in found] == [
        "Features", "What encoders generate", "How features fill their space"
    ]  # fmt: skip
    titles = [field.title for field in boards.fields(found[2])]
    assert titles == [
        "effective rank",
        "uniformity",
        "seeds",
        "training s",
    ]  # the metric of this name; ranks are of scores


def test_cells_have_intervals_and_ranks_and_mark_what_may_be_best() -> None:
    near = {"mean": 0.94, "low": 0.8389, "high": 1.0}
    (section,) = sections(THREE, bigan=BEST, aae=CLOSE | near, pixels=FAR)
    by_title = {field.title: [field.cell(line) for line in section.lines] for field in boards.fields(section)}
    assert [cell.text for cell in by_title["rank"]] == ["1-2", "1-2", "3"]
    assert [cell.order for cell in by_title["rank"]] == [1.5, 1.5, 3]
    assert [cell.is_best for cell in by_title["linear top1"]] == [True, True, False]
    assert by_title["linear top1"][0].behind == "(95.00 to 98.00)"
    assert by_title["linear top1"][1].behind == "(83.89 to 100.00)"  # of 94


def test_mistakes_are_shares_of_a_true_class(text: str) -> None:
    outline = Outline(text)
    assert outline.texts("table")[1].endswith("bigan · code cat dog recall images cat 100 100.00 2 dog 50 50 50.00 2")
    said = prose(text)
    assert "bigan · code , linear@2, 96.00 %, 3 seeds together dog taken for cat: 50.0 %" in said
    assert "pixels · pixels , linear@2, 94.50 %, 3 seeds together 1 taken for 0: 50.0 %" in said  # no view, no names


def test_settings_of_equal_score_show_their_own_mistakes(tmp_path: Path) -> None:
    answers = {1: np.array([0, 0, 1, 0]), 5: np.array([1, 0, 1, 1])}  # each has three of four
    for k, predicted in answers.items():
        knn = {"protocol": "knn", "protocol_label": "knn", "protocol_params": {"k": k}}
        one = record("bigan", "code", 0, 0.75, **knn, predictions=f"predictions/code/{k}.npz")
        arrays(publish(tmp_path, one).predictions("code", str(k)), predicted=predicted, label=LABELS)
    runs = {run.path.name.rpartition("-")[2]: run for run in layout.runs_below(tmp_path)}
    (section,) = sections(store.read_store(tmp_path).records)
    worst = {}
    for row in section.rows:
        matrix = figures.confusions(row, runs, ["cat", "dog"], {})
        assert matrix is not None
        worst[row.protocol] = matrix.worst
    assert worst == {"knn@2 (k=1)": "dog taken for cat: 50.0 %", "knn@2 (k=5)": "cat taken for dog: 50.0 %"}


def test_every_player_of_every_seed_has_a_line(text: str) -> None:
    chart = re.search(r'<svg class="chart".*?</svg>', text)
    assert chart
    assert len(re.findall(r'<path class="line hue0"', chart[0])) == 3
    assert len(re.findall(r'<path class="line hue1"', chart[0])) == 3
    assert re.findall(r"<text class=.hue\d.[^>]*>(\w+)<", chart[0]) == [
        "generator",
        "discriminator",
    ]  # the higher first
    assert "bigan , 3 seeds, 200 images a second" in prose(text)
    assert "Without losses, or without a history: pixels, aae." in prose(text)


def test_neighbours_of_another_class_are_framed(text: str) -> None:
    (frame, *others) = re.findall(r"<rect ([^>]*)/>", text)
    assert frame == 'x="12" y="0" width="4" height="4"'  # the third image of the first row, each pixel once
    assert others == [frame]  # the other tap's
    assert "3 of 4 neighbours are of the test image's class" in prose(text).replace("&#39;", "'")
    assert "cat: cat dog; dog: dog dog." in text


def test_a_setting_in_several_sizes_is_a_curve(tmp_path: Path) -> None:
    for k, top1 in ((1, 0.9), (5, 0.95), (20, 0.8)):
        knn = {"protocol": "knn", "protocol_label": f"knn-{k}", "protocol_params": {"k": k, "metric": "cosine"}}
        for label in ("bigan", "pixels"):
            publish(tmp_path, record(label, "code", 0, top1 - (label == "pixels") / 10, **knn))
    outline = Outline(page(tmp_path))
    (table,) = [text for text in outline.texts("table") if "over k" in text]
    assert table.endswith("encoder and tap 1 5 20 bigan · code 90.00 95.00 80.00 pixels · code 80.00 85.00 70.00")


def test_two_variants_of_an_encoder_are_no_curve(tmp_path: Path) -> None:
    def titles() -> list[str]:
        return [curve.setting for curve in figures.curves(leaderboard(store.read_store(tmp_path).records).rows)]

    for budget in (100, 1000):
        publish(tmp_path, record(f"aae-{budget}", "code", 0, 0.9, encoder="aae", params={"labels": budget}))
    assert titles() == []
    publish(tmp_path, record("aae-10", "code", 0, 0.8, encoder="aae", params={"labels": 10}))
    assert titles() == ["labels"]


def test_failures_alarms_and_damage_are_named(suite: Path) -> None:
    publish(suite, failed("gan", 0, "non-finite loss"))
    alarm = Alarm(name="dead_units", value=0.9, threshold=0.5, text="90 % of the units are dead")
    publish(suite, record("vae", "code", 0, 0.5, alarms=[alarm], predictions=None))
    broken = publish(suite, record("broken", "code", 0, 0.5)).record("code", "linear-0")
    broken.write_text("{}")
    text = prose(page(suite))
    assert "gan (1 of 3 seeds): non-finite loss" in text
    assert "vae · code : 90 % of the units are dead" in text
    assert "linear-0.json : not a record: it has no sha256" in text


def test_runs_without_views_are_said_to_have_none(text: str) -> None:
    assert "No map and no neighbours of pixels · pixels, aae · code: their runs were made before" in prose(text)


def test_damaged_files_leave_their_part_out(suite: Path) -> None:
    for name in ("history.csv", "*.npz", "*.png"):
        for path in suite.rglob(name):
            path.write_bytes(b"PK\x03\x04 no such file" if name == "*.npz" else b"\x89PNG\r\n\x1a\n nothing")
    outline = Outline(page(suite))
    assert not outline.all("img")
    assert not outline.all("image")
    assert "1 bigan code 96.00 (47.08 to 99.96) " in " ".join(outline.texts("tr"))


def test_arrays_with_a_damaged_header_leave_their_part_out(suite: Path) -> None:
    for path in suite.rglob("*.npz"):
        with zipfile.ZipFile(path) as archive:
            members = {name: archive.read(name) for name in archive.namelist()}
        with zipfile.ZipFile(path, "w") as archive:
            for name, content in members.items():
                archive.writestr(name, content.replace(b"}", b" ", 1))
    text = page(suite)
    assert 'class="map"' not in text
    assert 'class="confusion"' not in text


HISTORIES = {
    "infinite": "epoch,loss\ninf,inf\n2,1\n",
    "without epochs": "seconds,a_loss\n1,1\n",
    "a long field": f"epoch,a_loss\n1,{'1' * 140_000}\n",
    "text": "epoch,a_loss\none,two\n",
    "far apart": "epoch,a_loss\n1,-1e308\n2,1e308\n",
    "close together": "epoch,a_loss\n1,5e-324\n2,0\n",
    "huge epochs": "epoch,a_loss\n1e308,1\n-1e308,2\n",
}


@pytest.mark.parametrize("text", HISTORIES.values(), ids=HISTORIES)
def test_no_history_keeps_the_page_from_being_made(suite: Path, text: str) -> None:
    (damaged, *_) = sorted(suite.rglob("history.csv"))
    damaged.write_text(text)
    assert "1 bigan code 96.00 " in " ".join(Outline(page(suite)).texts("tr"))


VIEWS: dict[str, dict[str, t.Any]] = {
    "complex": {"projection": np.ones((40, 3), np.complex128)},
    "text": {"variance_shares": np.array(["a", "b", "c"])},
    "no axis": {"classes": np.array("cat")},
    "infinite": {"projection": np.full((40, 3), np.inf)},
    "enormous": {"projection": np.linspace(-1e300, 1e300, 120).reshape(40, 3)},
    "classes of text": {"neighbour_labels": np.array([["a", "b"], ["c", "d"]])},
    "one axis": {"projection": np.ones(40)},
    "empty": {"projection": np.ones((40, 0))},
}


@pytest.mark.parametrize("changed", VIEWS.values(), ids=VIEWS)
def test_a_view_of_other_arrays_is_named_and_left_out(suite: Path, changed: dict[str, t.Any]) -> None:
    (path,) = suite.glob("bigan/*/seed0-*/views/code.npz")
    with np.load(path) as file:
        arrays(path, **dict(file) | changed)
    text = prose(page(suite))
    assert "seed0-" in text.partition("views/code.npz")[0][-60:]


def test_files_that_run_json_has_another_hash_of_are_named_and_left_out(suite: Path) -> None:
    about = record("bigan", "code", 0, 0.5).model_dump(mode="json")
    (run,) = [run for run in layout.runs_below(suite) if run.path.parts[-3] == "bigan" and "seed0" in run.path.name]
    files.publish(run.run_json, store.sealed(run.path, about | {"files": store.file_digests(run)}))
    assert "run.json has another sha256" not in page(suite)
    names = ["history.csv", "pictures/samples.png", "views/code.npz", "views/neighbours-code.png"]
    for name in names:
        path = run.path / name
        content = path.read_bytes()
        path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    text = page(suite)
    assert text.count("run.json has another sha256") == len(names)
    assert all(f"{run.path.relative_to(suite)}/{name}" in prose(text) for name in names)
    assert not Outline(text).all("img")
    assert "bigan · code" not in Outline(text).texts("figcaption")


def test_a_picture_of_enormous_size_is_not_decoded(suite: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (path,) = suite.glob("bigan/*/seed0-*/pictures/samples.png")
    path.write_bytes(png(np.zeros((5000, 5000), np.uint8)))
    decoded: list[t.Any] = []
    load = Image.Image.load
    monkeypatch.setattr(Image.Image, "load", lambda image: decoded.append(image.size) or load(image))
    assert "samples.png : cannot be drawn: 5000 x 5000 pixels" in prose(page(suite))
    assert (5000, 5000) not in decoded


def test_hundreds_of_labels_have_few_maps_and_pictures_that_are_drawn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build(tmp_path)
    (view,) = tmp_path.glob("bigan/*/seed0-*/views/code.npz")
    pixels = png(np.random.default_rng(0).integers(0, 255, (300, 300), np.uint8))
    for place in range(120):
        run = publish(tmp_path, record(f"e{place}", "code", 0, 0.5, key=f"{place:016x}"))
        files.replace(run.view("code"), view.read_bytes())
        files.replace(run.pictures / "samples.png", pixels)
    placed: list[int] = []
    monkeypatch.setattr(figures, "_tsne", lambda rows: placed.append(len(rows)))
    opened: list[Path] = []
    drawn = figures._pixels
    monkeypatch.setattr(figures, "_pixels", lambda run, path: opened.append(path) or drawn(run, path))
    text = page(tmp_path)
    assert len(placed) <= figures.MAX_TSNE
    assert 20 < text.count('class="map"') <= figures.MAX_MAPS
    assert len([path for path in opened if path.exists()]) < 40  # 120 of them are heavier than a page may be
    assert re.search(r"\d+ pictures more would make this page heavy", prose(text))
    assert "rows further down the table have no map here" in prose(text)


def test_arrays_that_do_not_fit_leave_their_part_out(suite: Path) -> None:
    for path in suite.rglob("views/*.npz"):
        with np.load(path) as file:
            arrays(path, **dict(file) | {"labels": np.full(40, 7)})  # there are two classes
    for path in suite.rglob("predictions/**/*.npz"):
        arrays(path, predicted=np.array([-1, 0, 1, 1]), label=LABELS)
    text = page(suite)
    assert 'class="map"' not in text
    assert 'class="confusion"' not in text


def test_the_same_files_give_the_same_page(suite: Path) -> None:
    assert page(suite) == page(suite)


def test_long_names_fold_behind_their_underscores(tmp_path: Path) -> None:
    publish(tmp_path, record("latent_regressor", "code", 0, 0.9))
    publish(tmp_path, record("other<_x", "code", 0, 0.8))
    text = page(tmp_path)
    assert '<span class="label">latent_<wbr>regressor</span>' in text
    assert '<span class="label">other&lt;_<wbr>x</span>' in text
    assert 'data-name="latent_regressor · code"' in text


def test_nothing_yet_says_what_to_do(tmp_path: Path) -> None:
    assert "No results yet: frostbench run SUITE.yaml makes some." in prose(page(tmp_path)).replace(" : ", ": ")


@pytest.mark.parametrize("name", ["mnist", "methods", "cifar10"])
def test_published_records_make_a_small_page(name: str) -> None:
    directory = ROOT / "results" / "published" / name
    text = page(directory)
    outline = Outline(text)
    assert len(text.encode()) < 5_000_000
    records = store.read_store(directory).records
    labels = {one.label for one in records if one.status == "done"}
    rows = outline.texts("tr")
    assert all(any(re.match(rf"\d+ {re.escape(label)} ", row) for row in rows) for label in labels)
    assert len(outline.all("td")) > len(labels)


@pytest.mark.slow
def test_the_mnist_suite_with_all_that_its_runs_leave_is_a_small_page_soon(tmp_path: Path) -> None:
    suite = tmp_path / "mnist"
    shutil.copytree(ROOT / "results" / "published" / "mnist", suite)
    random = np.random.default_rng(0)
    digits = np.arange(500) % 10
    for run in layout.runs_below(suite):  # views and pictures are not published: these have their shapes, and no less
        for tap in (run.path / "scores").iterdir():
            centres = 3 * random.normal(size=(10, 50))
            arrays(
                run.view(tap.name),
                classes=np.array(list("0123456789")),
                labels=digits,
                projection=(centres[digits] + random.normal(size=(500, 50))).astype(np.float32),
                variance_shares=np.full(50, 0.01, np.float32),
                query_labels=np.arange(10),
                neighbour_labels=random.integers(0, 10, (10, 9)),
            )
            files.replace(run.neighbours(tap.name), noise(rows=10, columns=10))
        for kind in ("samples", "reconstructions", "interpolations"):
            files.replace(run.pictures / f"{kind}.png", noise(rows=8, columns=8))
    started = time.process_time()  # what else the machine does is not the report's
    text = page(suite)
    assert time.process_time() - started < 30
    assert len(text.encode()) < 5_000_000
    assert len(Outline(text).all("image")) >= 12  # rows of neighbours, until their pictures weigh 2 MB


def noise(*, rows: int, columns: int) -> bytes:
    """A grid of MNIST's size, heavier than any of digits: noise cannot be compressed."""
    return png(np.random.default_rng(rows).integers(0, 256, (rows * 30 - 2, columns * 30 - 2), np.uint8))


# ---- that it is safe, and can be read by everyone -----------------------------------------------------------------


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page of what somebody wrote who means ill."""
    suite = build(tmp_path_factory.mktemp("hostile"))
    ill = publish(suite, record(HOSTILE, "code", 0, 0.99, suite=HOSTILE, params={HOSTILE: HOSTILE}), "one")
    files.replace(ill.history, b"epoch,a_loss\n1,2\n2,3\n")  # a chart, and so a label that names the encoder
    publish(suite, failed(HOSTILE, 1, HOSTILE), "two")
    publish(suite, record("other", "code", 0, 0.5, dataset=HOSTILE, protocol_label=HOSTILE), "three")
    alarm = Alarm(name="dead_units", value=0.9, threshold=0.5, text=HOSTILE)
    run = publish(suite, record("named", HOSTILE.replace("/", ""), 0, 0.97, alarms=[alarm]), "four")
    for view in suite.rglob("views/*.npz"):
        with np.load(view) as file:
            found = dict(file)
        arrays(view, **found | {"classes": np.array([HOSTILE, "dog"])})
    files.replace(run.history, f'epoch,"{HOSTILE.replace(chr(34), "")}_loss"\n1,2\n2,3\n'.encode())
    files.replace(suite / "report.html", page(suite).encode())
    return suite / "report.html"


def test_what_others_wrote_is_never_markup(hostile: Path) -> None:
    text = hostile.read_text()
    outline = Outline(text)
    assert len(outline.all("script")) == 1
    assert all(image.get("src") != "x" for image in outline.all("img"))
    assert not any(name.startswith("on") for _, attributes in outline.elements for name in attributes)
    assert "alert(1)" in prose(text)  # it is shown


def test_the_page_asks_nothing_of_a_network(text: str) -> None:
    outline = Outline(text)
    for _, attributes in outline.elements:
        for name in ("src", "href", "action", "srcset", "data"):
            value = attributes.get(name)
            assert value is None or value.startswith(("data:image/png", "#"))
    style, script = ((ROOT / "results" / "report" / name).read_text() for name in ("page.css", "page.js"))
    assert "url(" not in style + script
    assert "@import" not in style
    policy = [meta["content"] for meta in outline.all("meta") if meta.get("http-equiv") == "Content-Security-Policy"]
    assert policy
    assert (policy[0] or "").startswith("default-src 'none'; img-src data:;")


def test_tables_and_pictures_can_be_heard(hostile: Path) -> None:
    outline = Outline(hostile.read_text())
    assert len(outline.all("caption")) == len(outline.all("table"))
    assert all(heading.get("scope") in ("col", "row") for heading in outline.all("th"))
    assert all(image.get("alt") for image in outline.all("img"))
    for svg in outline.all("svg"):
        spoken = svg.get("role") == "img" and svg.get("aria-label")
        assert spoken or svg.get("aria-hidden") == "true" or "x" in svg  # x: a part of another one
    assert len(outline.all("h1")) == 1
    levels = [int(name[1]) for name, _ in outline.elements if re.fullmatch("h[1-6]", name)]
    assert all(later <= before + 1 for before, later in zip(levels, levels[1:]))
    targets = [attributes["id"] for _, attributes in outline.elements if "id" in attributes]
    assert len(targets) == len(set(targets))
    assert {(link["href"] or "")[1:] for link in outline.all("a")} <= set(targets)


def palettes() -> list[dict[str, str]]:
    style = (ROOT / "results" / "report" / "page.css").read_text()
    blocks = re.findall(r":root \{(.*?)\}", style, flags=re.DOTALL)
    return [dict(re.findall(r"--(\w+): (#[0-9a-f]{3,6});", block)) for block in blocks]


def luminance(colour: str) -> float:
    """Relative, as WCAG 2.2 defines it."""
    digits = colour[1:] if len(colour) == 7 else "".join(2 * one for one in colour[1:])
    channels = [int(digits[place : place + 2], 16) / 255 for place in (0, 2, 4)]
    linear = [one / 12.92 if one <= 0.04045 else ((one + 0.055) / 1.055) ** 2.4 for one in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("palette", palettes(), ids=["light", "dark", "print"])
def test_colours_stand_out_from_their_paper(palette: dict[str, str]) -> None:
    def contrast(one: str, other: str) -> float:
        low, high = sorted((luminance(palette[one]), luminance(palette[other])))
        return (high + 0.05) / (low + 0.05)

    for ink in ("ink", "soft", "link", "warn", "hue0", "hue1", "hue2", "hue3", "hue4"):  # WCAG's AA for text
        assert contrast(ink, "paper") >= 4.5, ink
    for ink in ("ink", "soft", "link"):
        assert contrast(ink, "wash") >= 4.5, ink


# ---- charts -----------------------------------------------------------------------------------------------------


def test_ticks_are_round_and_inside() -> None:
    assert charts.Scale(0.0, 10.0).ticks(5) == [0, 2, 4, 6, 8, 10]
    assert charts.Scale(0.93, 0.98).ticks(5) == pytest.approx([0.93, 0.94, 0.95, 0.96, 0.97, 0.98])
    assert charts.Scale(1.0, 200.0, logarithmic=True).ticks() == [1, 2, 5, 10, 20, 50, 100, 200]


def test_ticks_of_a_narrow_scale_are_told_apart() -> None:
    assert charts.ticks_as_text([0.69312, 0.69314, 0.69316]) == ["0.69312", "0.69314", "0.69316"]
    assert charts.ticks_as_text([0.1 * n for n in range(4)]) == ["0", "0.1", "0.2", "0.3"]
    assert charts.ticks_as_text([500, 1000, 20000]) == ["500", "1,000", "20,000"]


def test_a_scale_of_one_value_has_a_middle() -> None:
    assert charts.scale([0.5])(0.5) == pytest.approx(0.5)
    assert charts.scale([0.0])(0.0) == 0.5


def test_an_interval_beyond_the_scale_has_arrows() -> None:
    track = charts.interval(charts.Scale(0.9, 1.0), 0.95, 0.5, 0.97, [0.94, 0.96], None)
    assert track.count('class="cut"') == 1
    assert 'x1="0.00%" x2="70.00%"' in track
    assert 'cx="40.00%"' in track


def test_pictures_have_every_pixel_once_and_are_left_out_beyond_a_weight(tmp_path: Path) -> None:
    pixels = np.arange(12, dtype=np.uint8).reshape(3, 4)
    run = RunDirectory(tmp_path)
    files.replace(run.pictures / "samples.png", png(pixels.repeat(8, 0).repeat(8, 1)))
    files.replace(run.pictures / "reconstructions.png", png(pixels))
    found = list(figures.pictures("bigan", run, {}))
    assert [(one.width, one.height) for one in found] == [(4, 3), (4, 3)]
    assert figures.within(found, lambda one: one, most=len(found[0].source)) == found[:1]


# ---- the command ------------------------------------------------------------------------------------------------


def frostbench(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["frostbench", *arguments])
    try:
        main()
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0


def test_the_command_writes_the_page(
    suite: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert frostbench(monkeypatch, "report", str(suite)) == 0
    assert capsys.readouterr().out.strip() == str(suite / "report.html")
    assert (suite / "report.html").read_text() == page(suite)
    assert frostbench(monkeypatch, "report", str(suite), "--output", str(suite / "a" / "b.html")) == 0
    assert (suite / "a" / "b.html").read_text() == page(suite)


def test_a_directory_that_is_not_there_is_a_usage_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert frostbench(monkeypatch, "report", str(tmp_path / "none")) == 2
    assert "there is no such directory" in capsys.readouterr().err


# ---- in a browser -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def browser() -> t.Iterator[t.Any]:
    api = pytest.importorskip("playwright.sync_api", reason="pip install playwright to test in a browser")
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("no Chromium on this machine: apt-get install chromium")
    with api.sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield launched
        launched.close()


class Visit(t.NamedTuple):
    tab: t.Any
    heard: list[str]  # of the console, errors, and requests beyond the file itself


@pytest.fixture
def visit(browser: t.Any, hostile: Path) -> t.Iterator[t.Callable[..., Visit]]:
    contexts = []

    def go(**settings: t.Any) -> Visit:
        contexts.append(browser.new_context(**settings))
        tab = contexts[-1].new_page()
        heard: list[str] = []
        tab.on("console", lambda message: heard.append(message.text))
        tab.on("pageerror", lambda error: heard.append(str(error)))
        tab.on("dialog", lambda dialog: (heard.append(dialog.message), dialog.dismiss()))
        tab.on("request", lambda request: heard.append(request.url) if request.url[:5] not in ("file:", "data:") else 0)
        tab.goto(hostile.as_uri())
        return Visit(tab, heard)

    yield go
    for context in contexts:
        context.close()


def names(tab: t.Any, table: str = "#board2-1") -> list[str]:
    rows = tab.locator(f"{table} tbody tr:visible").evaluate_all("rows => rows.map(row => row.dataset.name)")
    return [name if name[0] != "<" else "hostile" for name in rows]


BY_PLACE = ["hostile", "named", "bigan · code", "pixels · pixels", "aae · code", "bigan · penultimate"]


@pytest.mark.browser
def test_headings_sort_by_click_and_by_keyboard(visit: t.Callable[..., Visit]) -> None:
    tab, heard = visit()
    place_first = [name.partition(" ·")[0] if name.startswith("named") else name for name in names(tab)]
    assert place_first == BY_PLACE
    score, encoder = (tab.locator("#board2-1 thead th", has_text=text) for text in ("linear", "encoder"))
    score.locator("button").click()
    assert score.get_attribute("aria-sort") == "descending"
    assert names(tab)[0] == "hostile"
    score.locator("button").click()
    assert score.get_attribute("aria-sort") == "ascending"
    assert names(tab)[0] == "bigan · penultimate"
    encoder.locator("button").focus()
    tab.keyboard.press("Enter")
    assert (encoder.get_attribute("aria-sort"), score.get_attribute("aria-sort")) == ("ascending", None)
    assert names(tab)[1:4] == ["aae · code", "bigan · code", "bigan · penultimate"]  # equal ones by place
    tab.keyboard.press("Space")
    assert encoder.get_attribute("aria-sort") == "descending"
    assert names(tab)[-2:] == ["aae · code", "hostile"]
    assert heard == []


@pytest.mark.browser
def test_a_filter_hides_rows_and_their_plots_but_no_control(visit: t.Callable[..., Visit]) -> None:
    tab, heard = visit()
    board = tab.locator("[data-board]", has=tab.locator("#board2-1"))
    board.locator("input[type=search]").fill("BIGAN  pen")
    assert names(tab) == ["pixels · pixels", "bigan · penultimate"]
    assert board.locator(".forest .row[data-name]:visible").count() == 2
    assert board.locator("output").inner_text() == "2 of 6 rows; controls stay"
    board.locator("input[type=search]").fill("")
    board.locator("input[type=checkbox]").check()
    assert "bigan · penultimate" not in names(tab)
    assert len(names(tab)) == 5
    assert heard == []


@pytest.mark.browser
def test_everything_opens_without_a_word_to_console_or_network(visit: t.Callable[..., Visit]) -> None:
    tab, heard = visit()
    assert not tab.locator(".map").first.is_visible()
    tab.locator("#open-all").click()
    assert tab.locator(".map").first.is_visible()
    legend = tab.locator("[data-classes] button").nth(1)
    legend.click()
    assert legend.get_attribute("aria-pressed") == "true"
    assert tab.locator(".map path.faded").count() == tab.locator(".map path[data-class='0']").count() > 0
    broken = tab.locator("img").evaluate_all("all => all.filter(one => !one.complete || !one.naturalWidth).length")
    assert broken == 0
    assert tab.evaluate("fetch('https://example.org').then(() => 'sent', () => 'refused')") == "refused"
    assert all("Content Security Policy" in text or "example.org" in text for text in heard)


@pytest.mark.browser
@pytest.mark.parametrize("width", [320, 390, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_page_is_wider_than_its_window(visit: t.Callable[..., Visit], width: int, scheme: str) -> None:
    tab, heard = visit(viewport={"width": width, "height": 800}, color_scheme=scheme)
    tab.locator("#open-all").click()
    assert tab.evaluate("document.documentElement.scrollWidth") <= width
    dark = tab.evaluate("getComputedStyle(document.body).backgroundColor") != "rgb(255, 255, 255)"
    assert dark == (scheme == "dark")
    assert heard == []


@pytest.mark.browser
def test_without_scripts_the_page_still_has_its_tables(visit: t.Callable[..., Visit]) -> None:
    tab, _ = visit(java_script_enabled=False)
    assert tab.locator("#board2-1 tbody tr").count() == 6
    assert not tab.locator(".filter").first.is_visible()
