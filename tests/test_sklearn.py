"""EncoderTransformer keeps scikit-learn's contract, and its features are the encoder's."""

import pickle
import subprocess
import sys
import typing as t

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.utils.estimator_checks import parametrize_with_checks

from encoders.base import ImageSet, Training
from encoders.pca import PCA
from encoders.pixels import Pixels
from encoders.sklearn import EncoderTransformer

TINY = {"hidden": 4, "latent": 2, "epochs": 1}


@parametrize_with_checks(
    [EncoderTransformer("pca", params={"components": 1}), EncoderTransformer("bigan", params=TINY)]
)
def test_it_passes_every_check_of_scikit_learn(estimator: t.Any, check: t.Callable[[t.Any], None]) -> None:
    check(estimator)


def test_whoever_lists_encoders_and_protocols_does_not_wait_for_scikit_learn() -> None:
    lists = "resolve.encoders(); resolve.protocols()"
    code = f"import sys; from bench.suites import resolve; {lists}; sys.exit('sklearn' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.fixture
def digits() -> tuple[np.ndarray[t.Any, t.Any], np.ndarray[t.Any, t.Any]]:
    """(200, 64) in 0..16, and their classes."""
    X, y = load_digits(return_X_y=True)
    return X[:200], y[:200]


def test_its_features_are_those_of_the_encoder(digits: tuple[t.Any, t.Any]) -> None:
    X, _ = digits
    images = np.rint(X * (255 / 16)).astype(np.uint8).reshape(-1, 1, 8, 8)
    module = PCA(components=5).fit(ImageSet(images, None, (), ""), Training(0))
    wanted = module(torch.from_numpy(images))["components"].numpy()
    transformer = EncoderTransformer("pca", shape=(1, 8, 8), params={"components": 5})
    assert np.array_equal(transformer.fit_transform(X), wanted)
    assert np.array_equal(transformer.transform(X[:7]), wanted[:7])


def test_numbers_become_bytes_by_one_straight_line() -> None:
    X = np.array([[-1.0, 0.0], [1.0, 3.0]])
    transformer = EncoderTransformer("pixels").fit(X)
    assert transformer.value_range_ == (-1.0, 3.0)
    assert np.allclose(transformer.transform(X) * 255, [[0, 64], [128, 255]])
    assert np.allclose(transformer.transform(np.array([[-9.0, 9.0]])) * 255, [[0, 255]])  # clipped
    given = EncoderTransformer("pixels", value_range=(0, 255)).fit(X)
    assert np.allclose(given.transform(np.array([[0.0, 200.0]])) * 255, [[0, 200]])
    assert np.array_equal(EncoderTransformer("pixels").fit_transform(np.full((3, 2), 7.0)), np.zeros((3, 2)))


def test_it_works_in_a_pipeline_and_a_grid_search(digits: tuple[t.Any, t.Any]) -> None:
    X, y = digits
    pipeline = make_pipeline(EncoderTransformer("pca", shape=(1, 8, 8)), LogisticRegression(max_iter=1000))
    grid = {"encodertransformer__params": [{"components": 1}, {"components": 20}]}
    search = GridSearchCV(pipeline, grid, cv=2).fit(X, y)
    assert search.best_params_ == {"encodertransformer__params": {"components": 20}}
    assert search.best_score_ > 0.8


def test_a_search_sets_one_parameter_of_the_encoder(digits: tuple[t.Any, t.Any]) -> None:
    X, y = digits
    pca = EncoderTransformer("pca", shape=(1, 8, 8), params={"components": 1, "whiten": True})
    assert pca.get_params()["params__components"] == 1
    assert "params__components" not in pca.get_params(deep=False)
    other = clone(pca).set_params(params__components=7, seed=2)
    assert (other.params, other.seed) == ({"components": 7, "whiten": True}, 2)
    assert (pca.params, clone(other).set_params(**pca.get_params()).params) == (pca.params, pca.params)
    with pytest.raises(ValueError, match="Invalid parameter 'parms'"):
        clone(pca).set_params(parms__components=1)
    for grid in ([1, 20], np.array([1, 20])):
        pipeline = make_pipeline(pca, LogisticRegression(max_iter=1000))
        search = GridSearchCV(pipeline, {"encodertransformer__params__components": grid}, cv=2).fit(X, y)
        assert search.best_params_ == {"encodertransformer__params__components": 20}
        assert search.best_estimator_[0].recipe_ == PCA(components=20, whiten=True)


def test_numbers_may_be_numpys(digits: tuple[t.Any, t.Any]) -> None:
    X, _ = digits
    tiny = {"hidden": 4, "latent": 2, "epochs": 1, "learning_rate": 1e-3}
    wanted = EncoderTransformer("bigan", shape=(1, 8, 8), params=tiny, value_range=(0, 16), seed=3).fit_transform(X)
    numpys = {name: np.asarray(value)[()] for name, value in tiny.items()}
    assert {type(value) for value in numpys.values()} == {np.int64, np.float64}
    transformer = EncoderTransformer(
        "bigan", shape=np.array([1, 8, 8]), params=numpys, value_range=np.array([0.0, 16.0]), seed=np.int64(3)
    )
    assert np.array_equal(transformer.fit_transform(X), wanted)
    kmeans = {"centroids": np.int32(4), "patch": np.uint8(3), "patches": np.int64(200), "iterations": np.int16(1)}
    assert EncoderTransformer("kmeans", shape=(1, 8, 8), params=kmeans).fit_transform(X).shape == (200, 16)


def test_an_encoder_with_a_spectral_norm_is_pickled(digits: tuple[t.Any, t.Any]) -> None:
    params = {"body": "mlp", "hidden": 4, "latent": 2, "epochs": 1, "spectral_norm": True}
    transformer = EncoderTransformer("wgan_gp", shape=(1, 8, 8), params=params).fit(digits[0])
    again = pickle.loads(pickle.dumps(transformer))
    assert np.array_equal(again.transform(digits[0]), transformer.transform(digits[0]))


def test_it_is_cloned_pickled_and_named(digits: tuple[t.Any, t.Any]) -> None:
    X, _ = digits
    transformer = EncoderTransformer("bigan", tap="code", shape=(1, 8, 8), params=TINY, seed=3).fit(X)
    features = transformer.transform(X)
    assert features.shape == (200, 2)
    assert np.array_equal(pickle.loads(pickle.dumps(transformer)).transform(X), features)
    assert np.array_equal(clone(transformer).fit(X).transform(X), features)
    assert not np.array_equal(clone(transformer).set_params(seed=4).fit(X).transform(X), features)
    assert transformer.get_feature_names_out().tolist() == ["encodertransformer0", "encodertransformer1"]
    frame = transformer.set_output(transform="pandas").transform(X)
    assert list(frame.columns) == ["encodertransformer0", "encodertransformer1"]


def test_the_encoder_may_be_a_class_of_ones_own(digits: tuple[t.Any, t.Any]) -> None:
    class Mine(Pixels):
        """Somebody's."""

    assert EncoderTransformer(Mine).fit_transform(digits[0]).shape == (200, 64)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"encoder": "bigann"}, "no built-in encoder is named 'bigann'"),
        ({"params": {"epoch": 1}}, "epoch"),
        ({"params": {"components": 500}}, "components=500 exceeds"),
        ({"tap": "code"}, "has no tap 'code'; it has components"),
        ({"shape": (3, 8, 8)}, r"shape \(3, 8, 8\) has 192 pixels; X has 64 columns"),
        ({"encoder": "supervised_aae"}, "needs labels"),
        ({"value_range": (1, 1)}, "value_range"),
        ({"value_range": (0, float("nan"))}, "value_range"),
    ],
)
def test_what_cannot_be_fitted_is_a_value_error(
    digits: tuple[t.Any, t.Any], settings: dict[str, t.Any], words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        EncoderTransformer(**{"encoder": "pca", **settings}).fit(digits[0])
