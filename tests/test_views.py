"""The small views of features that a run leaves for the report."""

import shutil
import typing as t
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from bench import datasets
from bench.datasets import Dataset
from bench.pipeline import snapshots
from protocols.base import FeatureSet
from results.layout import RunDirectory


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return datasets.load("digits", limit=300)


def kept(directory: Path, digits: Dataset) -> tuple[RunDirectory, dict[str, FeatureSet]]:
    parts = {"train": digits.train, "test": digits.test}
    sets = {
        part: FeatureSet(torch.from_numpy(np.array(one.images)).flatten(1).float(), torch.from_numpy(one.labels), 10)
        for part, one in parts.items()
        if one.labels is not None
    }
    run = RunDirectory(directory)
    snapshots.keep(run, "pixels", sets, parts)
    return run, sets


def test_points_are_spread_evenly() -> None:
    assert snapshots.evenly(3).tolist() == [0, 1, 2]
    points = snapshots.evenly(10_000)
    assert points[:3].tolist() == [0, 20, 40]
    assert len(points) == snapshots.POINTS


def test_a_projection_keeps_distances_between_rows_of_few_dimensions() -> None:
    few, wide = (torch.randn(shape, generator=torch.Generator().manual_seed(0)) for shape in ((40, 3), (3, 200)))
    rows = (few @ wide + 7).double()
    projected, shares = snapshots.projection(rows)
    projected = projected.double()
    assert torch.allclose(torch.cdist(projected, projected), torch.cdist(rows, rows), rtol=1e-3, atol=1e-3)
    assert float(shares.sum()) == pytest.approx(1)
    assert shares[:3].sum() > 0.999  # all there is lies in three dimensions
    assert (projected.gather(0, projected.abs().argmax(dim=0, keepdim=True)) >= 0).all()


def test_a_projection_is_that_of_scikit_learn() -> None:
    from sklearn.decomposition import PCA

    rows = torch.randn(80, 60, generator=torch.Generator().manual_seed(1)) * torch.linspace(5, 1, 60)
    projected, shares = snapshots.projection(rows)
    pca = PCA(snapshots.DIMENSIONS, svd_solver="full").fit(rows.numpy())
    assert projected.shape == (80, snapshots.DIMENSIONS)
    assert np.allclose(np.abs(projected.numpy()), np.abs(pca.transform(rows.numpy())), atol=1e-3)
    assert np.allclose(shares.numpy(), pca.explained_variance_ratio_, atol=1e-5)


@pytest.mark.parametrize("shape", [(1, 4), (5, 1), (3, 100)])
def test_a_projection_of_constant_features_is_zero(shape: tuple[int, int]) -> None:
    projected, shares = snapshots.projection(torch.full(shape, 3.0))
    assert not projected.any()
    assert not shares.any()
    assert projected.shape == (shape[0], min(shape))


def test_views_name_images_by_their_rows(tmp_path: Path, digits: Dataset) -> None:
    run, sets = kept(tmp_path, digits)
    with np.load(run.view("pixels"), allow_pickle=False) as view:
        assert view["classes"].tolist() == list(digits.test.classes)
        assert view["projection"].dtype == np.float32
        assert np.array_equal(view["labels"], sets["test"].labels[torch.from_numpy(view["points"])])
        labels = sets["test"].labels
        assert view["query_labels"].tolist() == list(range(10))
        assert all(int((labels == one).nonzero()[0, 0]) == row for one, row in enumerate(view["queries"].tolist()))
        distances = torch.cdist(sets["test"].features[view["queries"]].double(), sets["train"].features.double())
        nearest = distances.sort(dim=1).values[:, : snapshots.NEIGHBOURS]
        assert np.allclose(view["distances"], nearest)
        assert np.array_equal(view["neighbour_labels"], sets["train"].labels[torch.from_numpy(view["neighbours"])])
        first_row = [view["queries"][0], view["neighbours"][0, -1]]
    pixels = np.array(Image.open(run.neighbours("pixels")))  # 10 x 10 images of 8 x 8, a gap of 2, 8 times as large
    assert pixels.shape == (98 * 8, 98 * 8)
    assert np.array_equal(pixels[4 : 8 * 8 : 8, 4 : 8 * 8 : 8], digits.test.images[first_row[0], 0])
    assert np.array_equal(pixels[4 : 8 * 8 : 8, 90 * 8 + 4 :: 8], digits.train.images[first_row[1], 0])


def test_views_are_the_same_bytes_again(tmp_path: Path, digits: Dataset) -> None:
    one, other = (kept(tmp_path / name, digits)[0] for name in ("one", "other"))
    for path in ("view", "neighbours"):
        assert getattr(one, path)("pixels").read_bytes() == getattr(other, path)("pixels").read_bytes()


def test_a_gallery_of_few_rows_and_one_class_will_do() -> None:
    train = FeatureSet(torch.tensor([[0.0], [1.0], [5.0]]), torch.tensor([1, 1, 0]), 2)
    test = FeatureSet(torch.tensor([[4.0], [0.9]]), torch.tensor([1, 1]), 2)
    found = snapshots.neighbourhood(train, test)
    assert found.queries.tolist() == [0]
    assert found.rows.tolist() == [[2, 1, 0]]
    assert found.distances.tolist() == [[1.0, 3.0, 4.0]]


def test_a_run_makes_the_views_that_are_missing_and_keeps_the_others(
    tmp_path: Path, frostbench: t.Callable[..., t.Any]
) -> None:
    def judge(protocol: str) -> None:
        suite = (
            "{suite: s, datasets: [{name: digits, limit: 100}], seeds: [0], encoders: [pixels], wandb: {mode: off}, "
        )
        (tmp_path / "s.yaml").write_text(suite + f"protocols: [{protocol}]}}")
        assert frostbench("run", "s.yaml", "--threads", "1").code == 0

    judge("{name: knn, k: 1}")
    (run,) = (RunDirectory(path) for path in (tmp_path / "runs" / "s" / "pixels").glob("*/seed*"))
    made = run.view("pixels").stat().st_mtime_ns
    judge("{name: knn, k: 2}")
    assert run.view("pixels").stat().st_mtime_ns == made
    content = run.view("pixels").read_bytes()
    shutil.rmtree(run.views)
    judge("{name: knn, k: 3}")
    assert run.view("pixels").read_bytes() == content
    run.weights.write_bytes(b"damaged")  # the encoder is made again, and so are its views
    made = run.view("pixels").stat().st_mtime_ns
    judge("{name: knn, k: 4}")
    assert run.view("pixels").stat().st_mtime_ns > made
