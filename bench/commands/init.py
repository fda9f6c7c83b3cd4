"""A commented suite to start from."""

import re
import shlex
from pathlib import Path

from bench.errors import config_error
from results import files

SUITE = """\
# A suite: every encoder is trained on every dataset with every seed, frozen, and scored by every protocol.
# `frostbench run {file}` runs it; run it again to resume. `frostbench plan {file}` estimates time, memory and disk.

suite: {name}                # names the results directory: runs/{name}
datasets: [mnist5k]          # 5,000 MNIST digits, no download; `frostbench list datasets` shows others
# datasets:
#   - {{name: mnist, limit: 10000}}          # keep 10,000 train and test images
#   - {{name: mnist, split: validation}}     # tune on validation images, not on the test set
#   - folder:photos                        # images of your own: photos/train/<class>/*.png, photos/test/<class>/*.png

seeds: 0-2                   # three seeds: intervals then cover new trainings, not only new test images

encoders:                    # `frostbench list encoders`; `frostbench describe bigan` shows the parameters of one
  - pixels                   # controls: baselines that a learned encoder has to beat
  - {{name: pca, components: 50}}
  - {{name: autoencoder, epochs: 6}}
  - {{name: autoencoder, label: autoencoder-l1, loss: l1, epochs: 6}}      # a label names a second variant

protocols:                   # `frostbench list protocols`; the first one orders the table
  - linear
  - {{name: knn, k: 1, metric: euclidean}}

# controls: none             # by default each trained encoder is compared with the same network before training
# precision: auto            # bfloat16 where the device computes it natively; float32 by default
wandb: {{mode: offline}}       # off, offline or online
"""


def write(file: Path, *, overwrite: bool = False) -> None:
    """Write the suite, named after the file. Raises ConfigError if the file exists and must not be overwritten."""
    if file.exists() and not overwrite:
        raise config_error(str(file), "exists already; remove it, or give another name: frostbench init OTHER.yaml")
    name = re.sub(r"[^a-z0-9_-]+", "-", file.stem.lower()).strip("-_")[:64] or "mine"
    files.replace(file, SUITE.format(name=name, file=shlex.quote(file.name)).encode())
