"""The metrics that are no fractions: how tables print them, and which way is better."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Metric:
    title: str
    digits: int  # printed behind the point
    higher_is_better: bool
    about: str


METRICS = {  # in the order of a table's columns
    "parzen": Metric("Parzen", 1, True, "log-density of test images about samples, nats, higher is better"),
    "classifier_frechet": Metric(
        "classifier Frechet", 2, False, "distance of samples to test images in a small classifier's features, 0 is best"
    ),
    "classes_covered": Metric("classes", 1, True, "how many the samples cover"),
    "kl_to_uniform": Metric("KL", 3, False, "from the samples' classes to all equally often, nats, 0 is best"),
    "reconstruction_error": Metric("error", 4, False, "mean squared, of a reconstructed pixel in 0..1"),
    "reconstruction_ratio": Metric("ratio", 3, False, "of that to the error of another image's reconstruction"),
}
