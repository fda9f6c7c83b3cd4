"""How representations are learned: one method a file, named after it.

A frozen encoder is read from a run's directory, or from what `frostbench export` wrote:

    from encoders import load
    encoder = load("DIR")
    features = encoder(images)["penultimate"]  # uint8 (n, c, h, w) -> float32 (n, d); encoder(images) has every tap
"""

from encoders.loading import load

__all__ = ["load"]
