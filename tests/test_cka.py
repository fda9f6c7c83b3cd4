"""frostbench cka: how alike two encoders are, of files and of runs."""

import typing as t
from pathlib import Path

import numpy as np

LABELS = np.arange(40) % 2


def write(name: str, test: np.ndarray[t.Any, t.Any], labels: np.ndarray[t.Any, t.Any] = LABELS) -> None:
    train = np.random.Generator(np.random.Philox(9)).normal(size=(40, test.shape[1]))  # the same CKA whatever it is
    np.savez(name, train_features=train, train_labels=LABELS, test_features=test, test_labels=labels)


def test_a_turn_a_scale_and_a_shift_change_nothing(frostbench: t.Callable[..., tuple[int, str, str]]) -> None:
    x = np.random.Generator(np.random.Philox(0)).normal(size=(40, 2))
    write("one.npz", x)
    write("turned.npz", 3 * x @ np.array([[0.6, 0.8], [-0.8, 0.6]]) + 5)
    assert frostbench("cka", "one.npz", "turned.npz") == (0, "one.npz  turned.npz  1.0000\n", "")


def test_of_two_features_that_vary_alike_one_alone_is_alike_by_the_root_of_a_half(
    frostbench: t.Callable[..., tuple[int, str, str]],
) -> None:
    signs = np.array([[a, b] for a in (-1.0, 1.0) for b in (-1.0, 1.0)] * 10)
    write("both.npz", signs)
    write("first.npz", signs[:, :1])
    write("second.npz", signs[:, 1:])
    assert frostbench("cka", "both.npz", "first.npz")[1] == "both.npz  first.npz  0.7071\n"  # n^2 / (sqrt(2) n n)
    assert frostbench("cka", "first.npz", "second.npz")[1] == "first.npz  second.npz  0.0000\n"


def test_rows_of_other_images_are_an_error(frostbench: t.Callable[..., tuple[int, str, str]]) -> None:
    x = np.random.Generator(np.random.Philox(0)).normal(size=(40, 2))
    write("one.npz", x)
    write("other.npz", x, 1 - LABELS)
    write("fewer.npz", x[:30], LABELS[:30])
    wanted = "wanted features of the same test images in the same order, got"
    code, said, told = frostbench("cka", "one.npz", "other.npz")
    assert (code, said) == (4, "") and f"{wanted} 40 and 40 rows, with different labels" in told
    code, _, told = frostbench("cka", "one.npz", "fewer.npz")
    assert code == 4 and f"{wanted} 40 and 30 rows\n" in told
    assert frostbench("cka", "one.npz", "gone.npz")[0] == 4


def test_runs_are_compared_layer_by_layer_and_with_files(
    frostbench: t.Callable[..., tuple[int, str, str]],
) -> None:
    Path("two.yaml").write_text(
        "suite: two\ndatasets: [{name: digits, limit: 200}]\nseeds: [0]\nencoders:\n  - pixels\n"
        "  - {name: bigan, hidden: 16, latent: 4, epochs: 1}\nprotocols: [{name: knn, k: 1}]\nwandb: {mode: off}\n"
    )
    assert frostbench("run", "two.yaml", "--threads", "1")[0] == 0
    pixels, bigan = (str(next(Path(f"runs/two/{label}").rglob("run.json")).parent) for label in ("pixels", "bigan"))
    code, said, told = frostbench("cka", pixels, bigan)
    assert code == 0, told
    lines = [line.split() for line in said.splitlines()]
    assert [line[:2] for line in lines] == [["pixels/pixels", "bigan/penultimate"], ["pixels/pixels", "bigan/code"]]
    assert all(0 < float(line[2]) < 1 for line in lines)
    assert {line.split()[2] for line in frostbench("cka", bigan, bigan)[1].splitlines()} >= {"1.0000"}
    frostbench("extract", pixels, "--output", "pixels.npz")
    assert frostbench("cka", "pixels.npz", pixels)[1] == "pixels.npz  pixels/pixels  1.0000\n"
