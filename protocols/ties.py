"""Which rows are exactly as similar to a query: cosine similarities of float32 rows in the order of whole numbers.

float64 settles all but those that its rounding may have exchanged. Each of these is compared with one of them, of which
it is a multiple and a rest: however small the rest is, float64 knows its digits. What that parts is compared again,
group by group. Where a group stays whole, whole numbers of any size say what is equal.
"""

import itertools

import torch
from torch import Tensor

from protocols.nearest import told_apart


def exact_ranks(found: Tensor, queries: Tensor, gallery: Tensor, *, positive: bool) -> Tensor:
    """Whole numbers that grow with the exact cosine similarity and are equal where it is, as float64 (m, n).

    found: the `nearness` of float32 queries (m, d) and gallery (n, d). positive: nothing in these is negative.
    """
    m, n = found.shape
    ordered, order = found.sort(dim=1, descending=True)
    starts = told_apart(ordered, gallery.shape[1], relative=positive)  # the first of each group of possible equals
    starts[:, 0] = True
    starts, row = starts.flatten(), order.flatten()
    query = torch.arange(m, device=row.device).repeat_interleave(n)
    settled = (ordered == 0).flatten() & positive  # a sum of what is not negative is 0 only if all of it is
    while True:
        first, group = starts.nonzero()[:, 0], starts.cumsum(dim=0) - 1
        open_ = ((torch.bincount(group)[group] > 1) & ~settled).nonzero()[:, 0]
        if not len(open_):
            ranks = starts.view(m, n).cumsum(dim=1)
            return torch.empty_like(found).scatter_(1, row.view(m, n), -ranks.double())
        group = group[open_]
        more, doubt, equal = _compared(queries, query[open_], gallery, row[open_], row[first[group]])
        doubts = doubt.new_zeros(len(first)).scatter_reduce_(0, group, doubt, "amax")
        unlike, divided = torch.zeros(2, len(first), dtype=torch.bool, device=row.device)
        unlike[group[~equal]] = True
        falling = more.argsort(descending=True)
        falling = falling[group[falling].argsort(stable=True)]
        row[open_], more = row[open_][falling], more[falling]
        parted = (group[1:] == group[:-1]) & (more[:-1] - more[1:] > 2 * doubts[group[1:]])
        starts[open_[1:]] |= parted
        divided[group[1:][parted]] = True
        settled[open_] = ~divided[group]
        left = open_[(unlike & ~divided)[group]]
        row[left], starts[left] = _by_whole_numbers(queries, query[left], gallery, row[left], starts[left])


def _compared(
    queries: Tensor, query: Tensor, gallery: Tensor, row: Tensor, other: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """How much more similar rows are than others, times the query's length; how far that is off; surely equal (p,)."""
    size = max(1, 2**20 // gallery.shape[1])
    parts = zip(*(torch.split(numbers, size) for numbers in (query, row, other)))
    found = [_differences(queries[q].double(), gallery[y].double(), gallery[z].double()) for q, y, z in parts]
    more, doubt, equal = (torch.cat(part) for part in zip(*found))
    return more, doubt, equal


def _differences(x: Tensor, y: Tensor, z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """x.y / |y| - x.z / |z| of rows (p, d), how far rounding can move it, and whether it is 0 for sure.

    With y = a (z + s), s at right angles to z, and x' the part of x at right angles to z, it is
    (x'.s / |z| - x.z / |z| (r - 1)) / r, where r^2 = 1 + |s|^2 / |z|^2. Products of two float32 are exact in float64,
    so that x' and s have digits of their own. Where y is far from z, nothing is known.
    """
    pivot = z.abs().argmax(dim=1, keepdim=True)
    largest, square = z.gather(1, pivot), z.square().sum(dim=1, keepdim=True)

    def rest(rows: Tensor) -> tuple[Tensor, Tensor]:  # at right angles to z, and the size of what it is a difference of
        aside = (largest * rows - rows.gather(1, pivot) * z) / largest
        size = aside.abs()
        return aside - z * ((z * aside).sum(dim=1, keepdim=True) / square), size.addcmul_(
            z.abs(), (z.abs() * size).sum(dim=1, keepdim=True) / square
        )

    (own, of_x), (s, of_y) = rest(x), rest(y)
    times, length = (y * z).sum(dim=1) / square[:, 0], square[:, 0].sqrt()
    along = (x * z).sum(dim=1) / length
    spread, wide = (part.square().sum(dim=1) / times.square() / square[:, 0] for part in (s, of_y))
    r = (1 + spread).sqrt()
    more = ((own * s).sum(dim=1) / times / length - along * (spread / (1 + r))) / r
    doubt = (y.shape[1] + 16) * 2.0**-50 * ((of_x * of_y).sum(dim=1) / times / length + along.abs() * wide)
    near = (times > 0) & (wide <= 1)
    equal = (near & (wide == 0)) | (((x * y) == 0).all(dim=1) & ((x * z) == 0).all(dim=1))
    return more.where(near, 0), doubt.where(near, torch.inf), equal


def _by_whole_numbers(
    queries: Tensor, query: Tensor, gallery: Tensor, row: Tensor, starts: Tensor
) -> tuple[Tensor, Tensor]:
    """The rows of each group from most to least similar, and which of them start groups of equals."""
    wholes: dict[int, tuple[list[int], int]] = {}
    first = [*starts.nonzero()[:, 0].tolist(), len(row)]
    rows, news, queries_ = row.tolist(), starts.tolist(), query.tolist()
    for start, end in zip(first, first[1:]):
        x, values = _whole(queries[queries_[start]].tolist()), {}
        for one in rows[start:end]:
            if one not in wholes:
                y = _whole(gallery[one].tolist())
                wholes[one] = y, sum(a * a for a in y) or 1
        bits = 2 * max(wholes[one][1] for one in rows[start:end]).bit_length()  # fractions differ by more than 2^-bits
        for one in rows[start:end]:
            y, square = wholes[one]
            product = sum(a * b for a, b in zip(x, y))
            values[one] = (product * abs(product) << bits) // square
        rows[start:end] = sorted(rows[start:end], key=values.__getitem__, reverse=True)
        news[start + 1 : end] = [values[one] != values[other] for other, one in itertools.pairwise(rows[start:end])]
    return row.new_tensor(rows), starts.new_tensor(news)


def _whole(row: list[float]) -> list[int]:
    """A row of float32 numbers times a power of two that makes them whole."""
    ratios = [value.as_integer_ratio() for value in row]
    unit = max(denominator for _, denominator in ratios)
    return [numerator * (unit // denominator) for numerator, denominator in ratios]


def few_values(queries: Tensor, gallery: Tensor) -> bool:
    """Whether the rows are multiples of such small whole numbers that float64 parts all cosines but equal ones.

    Two that differ do so by at least 1 / (2 |x|^2 |y|^2 |z|^2), for a query x and gallery rows y and z.
    """
    asked, kept = _largest(queries), _largest(gallery)
    return 2 * asked * kept * kept * (gallery.shape[1] + 16) < 2.0**50


def _largest(rows: Tensor) -> float:
    """The largest squared length of rows, each divided by the largest power of two that leaves it whole."""
    largest = 0.0
    for some in torch.split(rows, max(1, 2**20 // rows.shape[1])):
        fraction, exponent = some.double().frexp()
        whole = (fraction * 2**24).long()
        last = exponent + ((whole & -whole).double().log2() - 24).where(whole != 0, torch.inf)  # the lowest bit's
        unit = last.amin(dim=1, keepdim=True)
        scaled = torch.ldexp(some.double(), -unit.where(unit.isfinite(), 0))
        largest = max(largest, float(scaled.square().sum(dim=1).amax()))
        if largest > 2.0**51:
            break
    return largest
