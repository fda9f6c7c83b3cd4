"""Metrics: how tables print them, and of those that are no fractions which way is better."""

import math
from dataclasses import dataclass

SAMPLES, GEOMETRY = "what encoders generate", "how features fill their space"
FEATURES = ""  # metrics of these stand among the fractions


@dataclass(frozen=True)
class Metric:
    title: str
    digits: int  # printed behind the point
    higher_is_better: bool
    about: str
    of: str = SAMPLES  # what the tables that show it are about
    range: tuple[float, float] = (-math.inf, math.inf)


METRICS = {  # in the order of a table's columns
    "parzen": Metric("Parzen", 1, True, "log-density of test images about samples, nats, higher is better"),
    "classifier_frechet": Metric(
        "classifier Frechet", 2, False, "distance of samples to test images in a small classifier's features, 0 is best"
    ),
    "classes_covered": Metric("classes", 1, True, "how many the samples cover, one sample being enough"),
    "effective_classes": Metric(
        "effective classes",
        1,
        True,
        "so many classes, equally often, are as diverse as the samples (exp of the entropy)",
    ),
    "kl_to_uniform": Metric("KL", 3, False, "from the samples' classes to all equally often, nats, 0 is best"),
    "log_likelihood": Metric(
        "log-likelihood", 1, True, "log-density of test images under the model, nats, higher is better"
    ),
    "elbo": Metric("ELBO", 1, True, "a lower bound of the log-density of test images, nats, higher is better"),
    "binary_elbo": Metric(
        "binary ELBO",
        1,
        True,
        "a lower bound of the log-probability of test images made binary at random by their grey, higher is better",
    ),
    "reconstruction_error": Metric("error", 4, False, "mean squared, of a reconstructed pixel in 0..1"),
    "reconstruction_ratio": Metric("ratio", 3, False, "of that to the error of another image's reconstruction"),
    "two_sample_accuracy": Metric(
        "told apart", 3, False, "share of samples and test images that a fresh classifier tells apart, 0.5 is best"
    ),
    "two_sample_p": Metric(
        "p", 3, True, "probability of telling so many apart or more by chance, small where they differ"
    ),
    "effective_rank": Metric(
        "effective rank", 1, True, "directions that features vary in alike, 0 is a collapse", GEOMETRY
    ),
    "uniformity": Metric("uniformity", 3, False, "evenness on the sphere, -4 or so to 0, lower is more even", GEOMETRY),
    "alignment": Metric("alignment", 4, False, "squared distance of nearest unit rows, 0..4, 0 is nearest", GEOMETRY),
    "intrinsic_dimension": Metric(
        "dimension", 1, False, "of the set that rows lie on, lower is simpler, 0 is a collapse", GEOMETRY
    ),
    "log_loss": Metric(
        "log loss", 4, False, "mean -log(probability of the true class), nats, 0 is best", FEATURES, (0.0, math.inf)
    ),
    "ece": Metric(
        "ECE",
        4,
        False,
        "expected calibration error, the gap of confidence and accuracy over 15 bins of equal width, 0 is best",
        FEATURES,
        (0.0, 1.0),
    ),
}
ABOUT = {  # fractions that need a word
    "balanced_accuracy": "mean of the recalls of all classes",
    "macro_f1": "mean of the F1 of all classes",
    "top5": "share of images whose class is among the five best",
    "recall": "share of the images of a class, which is numbered as in the data, that are given it",
}
FURTHER = ("balanced_accuracy", "macro_f1", "top5", "log_loss", "ece")  # that a report has beside the tables
RECALL = "recall"  # stands for `recall_0`, `recall_1` and so on


def lowest(metric: str) -> float:
    """The least that a metric which is a fraction can be: of a Rand index, that of less agreement than by chance."""
    return -1.0 if metric == "ari" else 0.0


def bounds(metric: str | None) -> tuple[float, float]:
    """The least and the most that a metric can be."""
    return METRICS[metric].range if metric in METRICS else (lowest(metric or ""), 1.0)


def written(value: float, metric: str | None) -> str:
    """A fraction in percent, else with the metric's digits."""
    return f"{value:.{METRICS[metric].digits}f}" if metric in METRICS else f"{100 * value:.2f}"


def interval(value: float, low: float, high: float, metric: str | None, *, of_difference: bool = False) -> str:
    """What stands behind a value: '± 0.31', half of its interval, or both ends of a lopsided one, '(98.45 to 99.59)'.

    That is one whose middle is more than a tenth of this half away from the value, as near 0 and 100 %, or where ±
    would go beyond what the metric can be.
    """
    least, most = bounds(metric)
    least = -most if of_difference else least
    half, middle = (high - low) / 2, (high + low) / 2
    if abs(middle - value) > half / 10 or value - half < least - 1e-9 or value + half > most + 1e-9:
        return f"({written(max(low, least), metric)} to {written(min(high, most), metric)})"
    return f"± {written(half, metric)}"


def is_beside(metric: str) -> bool:
    """Whether tables show it beside its protocol's first metric, without ranks."""
    return metric in ("nmi", "ari", "clean_top1") or metric.startswith(("precision_at_", f"{RECALL}_"))
