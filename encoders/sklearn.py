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
    params: parameters of the encoder; None for its defaults, which are the papers' and may take hours.
    value_range: the numbers that become 0 and 255; None for the smallest and largest of the `X` that is fitted.
    seed: of everything that is drawn. The same seed and X give the same features.

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
    ) -> None:
        self.encoder = encoder
        self.tap = tap
        self.shape = shape
        self.params = params
        self.value_range = value_range
        self.seed = seed

    def fit(self, X: t.Any, y: object = None) -> t.Self:  # noqa: ARG002, N803 - scikit-learn's names
        """Learn from X (n, c * h * w), n at least 2. `y` is not read."""
        rows = validate_data(self, X, dtype=[np.float64, np.float32], ensure_min_samples=2)
        if self.value_range is not None and not self.value_range[0] < self.value_range[1]:
            raise ValueError(f"value_range must be a smaller and a larger number; got {self.value_range}")
        self.value_range_ = self.value_range or (float(rows.min()), float(rows.max()))
        self._shape = self.shape or (1, 1, rows.shape[1])
        if int(np.prod(self._shape)) != rows.shape[1]:
            raise ValueError(f"shape {self._shape} has {np.prod(self._shape)} pixels; X has {rows.shape[1]} columns")
        try:
            recipe = named(self.encoder) if isinstance(self.encoder, str) else self.encoder
            self.recipe_ = recipe(**(self.params or {}))
            if self.recipe_.uses_labels:
                raise EncoderError(f"{recipe.__name__} learns from labels, which fit(X) does not give it")
            self._tap = self.tap or self.recipe_.taps[-1]
            if self._tap not in self.recipe_.taps:
                raise EncoderError(f"{recipe.__name__} has no tap {self._tap!r}; it has {', '.join(self.recipe_.taps)}")
            images = ImageSet(self._bytes(rows), None, (), "")
            self.module_ = plain(self.recipe_.fit(images, Training(self.seed)))
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
        batches: list[Tensor] = [self.module_(some)[self._tap].float() for some in torch.split(images, BATCH)]
        return torch.cat(batches).numpy()
