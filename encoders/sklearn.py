"""Any encoder as a scikit-learn transformer: it learns in `fit(X)` and gives one tap's features in `transform(X)`.

make_pipeline(EncoderTransformer("bigan", tap="penultimate", shape=(1, 28, 28)), LogisticRegression())
"""

import typing as t

import numpy as np
import torch
from pydantic import ValidationError
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils import Tags
from sklearn.utils.validation import check_is_fitted, validate_data
from torch import Tensor

from encoders.base import Encoder, EncoderError, ImageSet, ImageShape, Training
from encoders.loading import named, plain

Array = np.ndarray[t.Any, np.dtype[t.Any]]
BATCH = 1000  # images that pass through the module together


class EncoderTransformer(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Unsupervised features of images, learned from rows of numbers.

    `X` is (n, c * h * w): a row is an image's channels one after the other, each row by row of pixels. Encoders read
    bytes, so numbers become 0..255 by one straight line for all of them, rounded to the nearest byte and clipped.

    encoder: the name of an encoder, or the class of one of your own.
    tap: the layer whose features are given; None for the deepest.
    shape: (c, h, w) of an image; None for a row of pixels (1, 1, number of columns).
    params: parameters of the encoder; None for its defaults, which are the papers' and may take hours. A search sets
        one of them by `params__components`.
    value_range: the numbers that become 0 and 255; None for the smallest and largest of the `X` that is fitted.
    seed: of everything that is drawn. The same seed and X give the same features.
    device: where it learns and encodes: "cpu", "cuda" or "cuda:1".

    After `fit`: `recipe_`, the encoder with its parameters; `module_`, frozen; `value_range_`; `n_features_in_`.
    `transform` gives float32 (n, d). Raises ValueError where the encoder cannot be built or learn from X, or learns
    from labels.
    """

    def __init__(
        self,
        encoder: str | type[Encoder] = "bigan",
        tap: str | None = None,
        shape: ImageShape | None = None,
        params: dict[str, t.Any] | None = None,
        value_range: tuple[float, float] | None = None,
        seed: int = 0,
        device: str = "cpu",
    ) -> None:
        self.encoder = encoder
        self.tap = tap
        self.shape = shape
        self.params = params
        self.value_range = value_range
        self.seed = seed
        self.device = device

    def get_params(self, deep: bool = True) -> dict[str, t.Any]:
        """This transformer's parameters and, if deep, the encoder's that are set, as `params__components`."""
        own: dict[str, t.Any] = super().get_params(deep)
        inner = self.params if deep and isinstance(self.params, dict) else {}
        return own | {f"params__{name}": value for name, value in inner.items()}

    def set_params(self, **params: t.Any) -> t.Self:
        """Set parameters; `params__components=5` changes one of the encoder's and leaves the others."""
        inner = {name: params.pop(name) for name in list(params) if name.startswith("params__")}
        super().set_params(**params)
        if inner:
            self.params = (self.params or {}) | {name.removeprefix("params__"): inner[name] for name in inner}
        return self

    def fit(self, X: t.Any, y: object = None) -> t.Self:  # noqa: ARG002, N803 - scikit-learn's names
        """Learn from X (n, c * h * w), n at least 2. `y` is not read."""
        rows = validate_data(self, X, dtype=[np.float64, np.float32], ensure_min_samples=2)
        if self.value_range is not None and not self.value_range[0] < self.value_range[1]:
            raise ValueError(f"value_range must be a smaller and a larger number; got {self.value_range}")
        low, high = (rows.min(), rows.max()) if self.value_range is None else self.value_range
        self.value_range_ = float(low), float(high)
        self._shape = (1, 1, rows.shape[1]) if self.shape is None else tuple(map(int, self.shape))
        if int(np.prod(self._shape)) != rows.shape[1]:
            raise ValueError(f"shape {self._shape} has {np.prod(self._shape)} pixels; X has {rows.shape[1]} columns")
        try:
            recipe = named(self.encoder) if isinstance(self.encoder, str) else self.encoder
            self.recipe_ = recipe(**_plain_numbers(self.params or {}))
            if self.recipe_.uses_labels:
                raise EncoderError(f"{recipe.__name__} needs labels, but fit(X) has none")
            self._tap = self.tap or self.recipe_.taps[-1]
            if self._tap not in self.recipe_.taps:
                raise EncoderError(f"{recipe.__name__} has no tap {self._tap!r}; it has {', '.join(self.recipe_.taps)}")
            images = ImageSet(self._bytes(rows), None, (), "")
            self.module_ = plain(self.recipe_.fit(images, Training(int(self.seed), torch.device(self.device))))
        except (EncoderError, ValidationError) as error:
            raise ValueError(str(error)) from error
        self._n_features_out = self._features(rows[:1]).shape[1]
        return self

    def transform(self, X: t.Any) -> Array:  # noqa: N803
        """The tap's features, float32 (n, d), of X (n, c * h * w)."""
        check_is_fitted(self)
        return self._features(validate_data(self, X, dtype=[np.float64, np.float32], reset=False))

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = []  # features are float32
        return tags

    def _bytes(self, rows: Array) -> np.ndarray[t.Any, np.dtype[np.uint8]]:
        low, high = self.value_range_
        scaled = (rows - low) * (255 / (high - low if high > low else 1.0))
        return np.clip(np.rint(scaled), 0, 255).astype(np.uint8).reshape(-1, *self._shape)

    @torch.no_grad()
    def _features(self, rows: Array) -> Array:
        images = torch.from_numpy(self._bytes(rows))
        batches: list[Tensor] = [
            self.module_(some.to(self.device))[self._tap].float() for some in torch.split(images, BATCH)
        ]
        return torch.cat(batches).cpu().numpy()


def _plain_numbers(value: t.Any) -> t.Any:
    """NumPy's numbers and arrays as Python's, at any depth: searches draw the former, encoders are strict."""
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    if isinstance(value, dict):
        return {name: _plain_numbers(each) for name, each in value.items()}
    return type(value)(map(_plain_numbers, value)) if isinstance(value, list | tuple) else value
