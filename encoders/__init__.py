"""How representations are learned: one method a file, named after it. Knows no suite, protocol or record.

A method stands on `training` (the loop), `players` (who moves, by which optimiser), `batch_norm` (the end of `fit`),
`networks`, `objectives`, `priors` and `parameters` (what several methods take); everything stands on `base`.

A frozen encoder is read from a run's directory, or from what `frostbench export` wrote:

    from encoders import load
    encoder = load("DIR")
    features = encoder(images)["penultimate"]  # uint8 (n, c, h, w) -> float32 (n, d); encoder(images) has every tap
"""

from encoders.loading import load

__all__ = ["load"]
