"""The nearest rows to each query, found exactly: the neighbours are those of float64 distances, on every device.

Products of low precision leave few rows that can be among them; float64 distances decide among these.
"""

import hashlib
import math
import typing as t
from collections import Counter

import torch
from torch import Tensor
from torch.nn import functional

from protocols.base import at_once

Metric = t.Literal["euclidean", "cosine"]


class Neighbours(t.NamedTuple):
    rows: Tensor  # int64 (m, k), nearest first; equal distances by row
    distances: Tensor  # float64 (m, k)
    exact_scans: int  # queries that were answered by a scan of the whole gallery


def nearest(queries: Tensor, gallery: Tensor, k: int, metric: Metric) -> Neighbours:
    """The k nearest rows of `gallery` (n, d) to each of `queries` (m, d), both float32, with 1 <= k <= n.

    Low-precision products give every pair a distance that it cannot be nearer than; float64 distances decide among the
    rows that this leaves. int8 comes first where the device multiplies it natively, then float32 for the queries that
    int8 leaves too many rows, then a scan of the whole gallery. About 250 MiB are used beside the arguments and the
    answer.
    """
    space = _Space(gallery, queries, metric)
    if metric == "euclidean":
        rows, squares, left = _proved(space, queries, gallery, k)
        if len(left):
            rows[left], squares[left] = _scan(space, queries[left], gallery, k)
        return Neighbours(rows, squares.sqrt(), len(left))
    rows, squares, left = _proved(space, queries, gallery, min(k + 1, len(gallery)))
    doubtful = space.doubtful(rows, squares, gallery, k)
    doubtful[left] = True
    rows, distances, left = rows[:, :k].clone(), squares[:, :k] / 2, doubtful.nonzero()[:, 0]
    if len(left):
        rows[left], distances[left] = _by_direction(space, queries[left], gallery, k)
    return Neighbours(rows, distances, len(left))


def _proved(space: "_Space", queries: Tensor, gallery: Tensor, k: int) -> tuple[Tensor, Tensor, Tensor]:
    """Rows and squared distances (m, k) by fast products, and the numbers of the queries that they could not prove."""
    rows = torch.empty(len(queries), k, dtype=torch.int64, device=queries.device)
    squares = torch.empty(len(queries), k, dtype=torch.float64, device=queries.device)
    left = torch.arange(len(queries), device=queries.device)
    for kind in (torch.int8, torch.float32) if _multiplies_int8(space.width, queries.device) else (torch.float32,):
        rows[left], squares[left], proved = _search(space, queries, left, gallery, k, kind)
        left = left[~proved]
        if not len(left):
            break
    return rows, squares, left


def _multiplies_int8(width: int, device: torch.device) -> bool:
    """Whether sums of `width` products of int8 are exact in int32 here, and much faster than float32."""
    if width > 2**17 or not hasattr(torch, "_int_mm"):  # no public function of PyTorch multiplies int8
        return False
    if device.type == "cuda":
        return torch.version.hip is None and torch.cuda.get_device_capability(device) >= (8, 0)
    has_vnni = getattr(torch.cpu, "_is_vnni_supported", None)  # without it, sums may saturate
    return has_vnni is not None and has_vnni() and torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]


class _Space:
    """Where both metrics are squared Euclidean distance: the rows themselves, or the rows made unit length."""

    def __init__(self, gallery: Tensor, queries: Tensor, metric: Metric) -> None:
        self.metric = metric
        self.width = gallery.shape[1] + 2 * (metric == "cosine")
        self.cached = max(1, at_once(gallery.device, 2**17) // self.width)  # float64 rows that a core's cache holds
        self.paired = min(self.cached, max(1, 2**22 // self.width))  # those that `_squares` takes, and fills up
        # Any centre gives the same distances; one amid the gallery keeps the products, and so their errors, small.
        # A scale that is a power of two rounds nothing; with all lengths at most 1 nothing overflows.
        self.centre = self.embedded(gallery[:: max(1, len(gallery) // 1024)], gallery=True).mean(dim=0)
        extremes = [float(x.abs()) for rows in (gallery, queries) for x in rows.aminmax()]
        largest = 1.0 if metric == "cosine" else max(extremes)
        self.scale = 2.0 ** -math.ceil(math.log2(2 * largest * math.sqrt(self.width))) if largest else 1.0

    def embedded(self, rows: Tensor, *, gallery: bool) -> Tensor:
        """Rows in float64; for cosine of unit length, so that half their squared distance is 1 - similarity."""
        rows = rows.double()
        if self.metric == "euclidean":
            return rows
        length = torch.linalg.vector_norm(rows, dim=1, keepdim=True)
        zero = length == 0
        # A row of zeros points along an axis of its own: at right angles to everything else.
        axes = torch.tensor([1.0, 0.0] if gallery else [0.0, 1.0], dtype=rows.dtype, device=rows.device)
        return torch.cat([rows / length.masked_fill(zero, 1), zero * axes], dim=1)

    def doubt(self, squares: Tensor) -> Tensor:
        """How far rounding can move squared distances of rows made unit length."""
        return 2.0**-51 * ((self.width + 8) * squares + 2 * squares.sqrt() + (self.width + 64) * 2.0**-53)

    def doubtful(self, rows: Tensor, squares: Tensor, gallery: Tensor, k: int) -> Tensor:
        """Whether rounding may have exchanged two of the first k neighbours, or one for the next (m,)."""
        gaps = squares.diff(dim=1)
        close = gaps <= self.doubt(squares[:, 1:])
        query, place = (close & (gaps == 0))[:, : k - 1].nonzero(as_tuple=True)  # copies of a row stand in order
        one, other = (gallery.index_select(0, rows[query, place + step]) for step in (0, 1))
        close[query, place] = (one != other).any(dim=1)
        return close.any(dim=1)

    def moved(self, rows: Tensor, *, gallery: bool) -> Tensor:
        return (self.embedded(rows, gallery=gallery) - self.centre) * self.scale

    def extents(self, rows: Tensor, *, gallery: bool) -> tuple[Tensor, Tensor]:
        """Lengths and largest absolute coordinates, both float64 (n,), of the rows moved."""
        lengths, peaks = torch.empty(2, len(rows), dtype=torch.float64, device=rows.device)
        for start in range(0, len(rows), self.cached):
            part = slice(start, start + self.cached)
            moved = self.moved(rows[part], gallery=gallery)
            lengths[part], peaks[part] = torch.linalg.vector_norm(moved, dim=1), moved.abs().amax(dim=1)
        return lengths, peaks

    def codes(
        self, rows: Tensor, index: Tensor, scales: Tensor, kind: torch.dtype, *, gallery: bool
    ) -> tuple[Tensor, Tensor]:
        """What is multiplied for the rows moved, (p, width up to a multiple of 8), and |row - codes * scale|, (p,)."""
        codes = torch.zeros(len(index), self.width + -self.width % 8, dtype=kind, device=rows.device)
        residuals = torch.empty(len(index), dtype=torch.float64, device=rows.device)
        for start in range(0, len(index), self.cached):
            part = slice(start, start + self.cached)
            moved = self.moved(rows.index_select(0, index[part]), gallery=gallery)
            scale = scales[part, None].double()
            coded = codes[part, : self.width]
            coded.copy_((moved / scale).round_() if kind == torch.int8 else moved)
            residuals[part] = torch.linalg.vector_norm(moved - coded * scale, dim=1)
        return codes, residuals

    def rounding(self, kind: torch.dtype) -> float:
        """How far a sum of products in floating point can be from the exact one, as a share of its absolute terms.

        m u / (1 - m u) holds whatever the order of the sum (Higham 2002, section 3.1). Sums of int8 are exact; what
        follows them, and follows float32 as well, is no more than 16 roundings.
        """
        terms = (16 + self.width * (kind == torch.float32)) * 2.0**-24
        backends = (torch.backends.mkldnn, torch.backends.cuda)
        own = [getattr(backend, "matmul").fp32_precision for backend in backends]  # noqa: B009  # PyTorch's types lack it
        exact = all(precision in ("none", "ieee") for precision in own)  # factors not rounded to TF32 or bfloat16
        return terms / (1 - terms) + (0.0 if exact else 3 * 2.0**-7)

    def slack(self, reach: Tensor, lengths: Tensor) -> Tensor:
        """How far the float64 distances that decide, and what is made of them, are off within `reach` of a query."""
        unit = self.scale if self.metric == "cosine" else 0.0  # unit rows carry the rounding of their length
        sums = reach + lengths
        return (self.width + 8) * (2.0**-50 * sums * (sums + unit) + 2.0**-100)  # the last is for underflow


def _search(
    space: _Space, queries: Tensor, wanted: Tensor, gallery: Tensor, k: int, kind: torch.dtype
) -> tuple[Tensor, Tensor, Tensor]:
    """Rows (m, k), squared distances (m, k), and whether they are proved (m,), of the queries whose rows are wanted."""
    rows = torch.full((len(wanted), k), len(gallery), device=queries.device)
    squares = torch.full((len(wanted), k), math.inf, dtype=torch.float64, device=queries.device)
    proved = torch.ones(len(wanted), dtype=torch.bool, device=queries.device)
    size = max(k, min(len(gallery), 2**16, 2**26 // (space.width * kind.itemsize)))
    for start in range(0, len(gallery), size):
        panel = _Panel(space, gallery, start, size, k, kind)
        for some in torch.split(proved.nonzero()[:, 0], panel.group):
            known = rows[some], squares[some]
            rows[some], squares[some], proved[some] = panel.nearer(queries[wanted[some]], *known)
            if kind == torch.int8 and proved[some].double().mean() < 0.5:  # int8 is too coarse for these features
                proved[int(some[-1]) + 1 :] = False
                break
    return rows, squares, proved


class _Panel:
    """A part of the gallery, as one group of queries after another is multiplied with it."""

    def __init__(self, space: _Space, gallery: Tensor, start: int, size: int, k: int, kind: torch.dtype) -> None:
        self.space, self.gallery, self.kind = space, gallery, kind
        rows = gallery[start : start + size]
        lengths, peaks = space.extents(rows, gallery=True)
        # A block is `depth` rows of about one length, which share a scale and a bound: only where that bound is small
        # enough is the block looked into. They are `blocks` columns apart, where their largest product is soon found.
        # A shared bound is a little loose: for int8 that is nothing beside what its codes lose, for float32 too much.
        depth = 2 ** max(0, min(5, math.floor(math.log2(len(rows) / max(32 * k, 512))))) if kind == torch.int8 else 1
        blocks = -(-len(rows) // (8 * depth)) * 8
        order = lengths.argsort()
        order = torch.cat([order, order[-1:].expand(blocks * depth - len(rows))])  # the last row fills it up
        fills = (torch.arange(len(order), device=order.device) >= len(rows)).view(blocks, depth).T
        self.scales = _scales(peaks[order].view(blocks, depth).amax(dim=1), kind)  # (blocks,)
        index = order.view(blocks, depth).T.flatten()  # the row of a column
        self.codes, residuals = space.codes(rows, index, self.scales.repeat(depth), kind, gallery=True)
        lengths = lengths[index]
        halves = lengths.square() / 2 * (1 - space.rounding(kind))
        self.right = torch.stack([halves, lengths, residuals]).float().view(3, depth, blocks)
        self.right[0].masked_fill_(fills, math.inf)  # what fills is never near
        self.shared = torch.stack([self.right[0].amin(dim=0), *self.right[1:].amax(dim=1)])  # (3, blocks)
        self.numbers = (start + index).view(depth, blocks).masked_fill_(fills, len(gallery))
        self.most = 4 * k + 512  # rows beside the k that look nearest that a query may leave to be measured
        # Queries at a time: what is held of each pair, of each block, and of each row in a block that is looked into.
        self.group = max(32, min(1024, 2**25 // (len(index) + 2 * blocks), 2**24 // (self.most * (depth + 8))))
        sums = torch.int32 if kind == torch.int8 else torch.float32
        self.room = torch.empty(self.group, len(index), dtype=sums, device=gallery.device)  # fresh memory is slow

    def nearer(self, queries: Tensor, rows: Tensor, squares: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The k nearest rows (m, k) of those known and the panel's, their squared distances, and whether it is proved.

        Rows and squared distances of the known ones come in; the number of the gallery's rows stands for none.

        What is compared is (|x - y|^2 - |x|^2) / 2 = |y|^2 / 2 - <x, y>, in units of the query's scale. With x' and y'
        for what is multiplied, <x, y> <= <x', y'> + |x - x'| |y| + |x'| |y - y'| (Cauchy and Schwarz). Rounding changes
        this by no more than the share `rounding` of |y|^2 / 2 + 3 (|x| + |x - x'|) (|y| + |y - y'|), |y - y'| <= |y|.
        """
        space, (m, k), device = self.space, rows.shape, queries.device
        lengths, peaks = space.extents(queries, gallery=False)
        scales = _scales(peaks, self.kind)
        index = torch.arange(max(m, 32), device=device).clamp(max=m - 1)  # GPUs multiply no fewer rows of int8
        codes, residuals = space.codes(queries, index, scales[index], self.kind, gallery=False)
        longest = lengths + residuals[:m]  # at least |x'|
        own = residuals[:m] + 6 * space.rounding(self.kind) * longest
        left = (torch.stack([torch.ones_like(own), -own, -longest], dim=1) / scales[:, None]).float()
        multiply = torch._int_mm if self.kind == torch.int8 else torch.mm
        products = multiply(codes, self.codes.T, out=self.room[: len(codes)])[:m].view(m, *self.numbers.shape)
        minima = products.amax(dim=1).float().mul_(self.scales).addmm_(left, self.shared, beta=-1)  # (m, blocks)

        def bounds(query: Tensor, block: Tensor) -> Tensor:  # (p, depth)
            found = products[query, :, block] * -self.scales[block, None]
            for share, side in zip(left[query].T, self.right):
                found.addcmul_(share[:, None], side[:, block].T)
            return found

        # First the rows that look nearest, one of each block: their distances say how near the neighbours are at least.
        block = minima.topk(min(k, minima.shape[1]), largest=False, sorted=False).indices.flatten()
        query = torch.arange(m, device=device).repeat_interleave(len(block) // m)
        lane = bounds(query, block).argmin(dim=1)
        taken = torch.full(minima.shape, -1, dtype=torch.int8, device=device)
        taken[query, block] = lane.to(torch.int8)
        x = space.embedded(queries, gallery=False)
        row = self.numbers[lane, block]
        square = _squares(space, x, self.gallery, query, row)
        rows, squares = _first(k, [rows, row.view(m, -1)], [squares, square.view(m, -1)])

        # Then every other row that can be as near.
        reach = squares[:, -1].sqrt() * space.scale
        far = (((reach.square() - lengths.square()) / 2 + space.slack(reach, lengths)) / scales).float()
        far = far.nextafter(torch.full_like(far, math.inf))
        hit = minima <= far[:, None]
        proved = hit.sum(dim=1) <= self.most
        query, block = (hit & proved[:, None]).nonzero(as_tuple=True)
        which, lane = (bounds(query, block) <= far[query, None]).nonzero(as_tuple=True)
        query, block = query[which], block[which]
        counts = torch.bincount(query, minlength=m)
        proved &= counts <= self.most + k
        keep = proved[query] & (taken[query, block] != lane)
        query, row = query[keep], self.numbers[lane[keep], block[keep]]
        counts = torch.bincount(query, minlength=m)
        place = torch.arange(len(query), device=device) - (counts.cumsum(0) - counts)[query]
        more_rows = torch.full((m, int(counts.max())), len(self.gallery), device=device)
        more_squares = torch.full(more_rows.shape, math.inf, dtype=torch.float64, device=device)
        more_rows[query, place] = row
        more_squares[query, place] = _squares(space, x, self.gallery, query, row)
        return *_first(k, [rows, more_rows], [squares, more_squares]), proved


def _scales(peaks: Tensor, kind: torch.dtype) -> Tensor:
    """What codes are multiples of (float32), for rows whose largest coordinates these are."""
    return (peaks / 127).clamp(min=2.0**-100).float() if kind == torch.int8 else torch.ones_like(peaks).float()


def _first(k: int, rows: list[Tensor], squares: list[Tensor]) -> tuple[Tensor, Tensor]:
    """The first k by squared distance, then row, of candidates (m, any) that stand side by side."""
    row, order = torch.cat(rows, dim=1).sort(dim=1)
    square, place = torch.cat(squares, dim=1).gather(1, order).sort(dim=1, stable=True)
    return row.gather(1, place[:, :k]), square[:, :k]


def _squares(space: _Space, queries: Tensor, gallery: Tensor, query: Tensor, row: Tensor) -> Tensor:
    """Squared distances (p,) of embedded queries and gallery rows, both by number (p,); infinite past the last row."""
    squares = torch.empty(len(row) + -len(row) % space.paired, dtype=torch.float64, device=row.device)
    # All parts have one shape, since the order of a sum may depend on it, and copies of a row are to be equally far.
    filled = functional.pad(row, (0, len(squares) - len(row))).clamp(max=len(gallery) - 1)
    asked = functional.pad(query, (0, len(squares) - len(row)))
    for part, r, q in zip(*(torch.split(every, space.paired) for every in (squares, filled, asked))):
        y = space.embedded(gallery.index_select(0, r), gallery=True)
        x = queries.index_select(0, q)
        torch.sum(functional.mse_loss(x, y, reduction="none"), dim=1, out=part)  # mse_loss: (x - y)^2 in one go
    return squares[: len(row)].masked_fill(row == len(gallery), math.inf)


def _scan(space: _Space, queries: Tensor, gallery: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Rows and squared distances (m, k) from all float64 distances."""
    numbers = _first_copies(gallery, k)
    found = []
    for some in torch.split(queries, 16):
        x = space.embedded(some, gallery=False)
        query = torch.arange(len(some), device=gallery.device).repeat_interleave(len(numbers))
        row = numbers.repeat(len(some))
        square = _squares(space, x, gallery, query, row)
        found.append(_first(k, [row.view(len(some), -1)], [square.view(len(some), -1)]))
    return torch.cat([rows for rows, _ in found]), torch.cat([squares for _, squares in found])


def _first_copies(gallery: Tensor, k: int) -> Tensor:
    """The numbers of all rows but the copies of a row beyond the first k, which cannot count."""
    copies: Counter[bytes] = Counter()
    kept: list[int] = []
    for i, features in enumerate(gallery.cpu().numpy()):
        digest = hashlib.blake2b(features.tobytes(), digest_size=16).digest()
        copies[digest] += 1
        if copies[digest] <= k:
            kept.append(i)
    return torch.tensor(kept, device=gallery.device)


def _by_direction(space: _Space, queries: Tensor, gallery: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Rows and cosine distances (m, k) of the nearest directions, equal ones by row."""
    different, which = torch.unique(queries, dim=0, return_inverse=True)
    numbers, positive = _first_copies(gallery, k), all_positive(queries, gallery)
    found = []
    for query in torch.split(different, 1):
        x = space.embedded(query, gallery=False)
        squares = _squares(space, x, gallery, torch.zeros_like(numbers), numbers)
        last = squares.kthvalue(k).values
        near = numbers[squares <= last + 2 * space.doubt(last)]
        found_near, order = nearness(query, gallery.index_select(0, near)).sort(descending=True)
        run = told_apart(found_near, gallery.shape[1], relative=positive).cumsum(dim=0)
        of_run = found_near[torch.searchsorted(run, run)]  # equals share the first one's
        distance = torch.where(of_run > 1, 1 / of_run, 1 - of_run)
        order = near[order]
        first = (run * len(gallery) + order).argsort()[:k]
        found.append((order[first], distance[first]))
    rows, distances = (torch.stack(parts)[which] for parts in zip(*found))
    return rows, distances


def nearness(queries: Tensor, gallery: Tensor) -> Tensor:
    """What grows with the cosine similarity of two float32 rows each, (p, d) and (p, d) or (1, d), float64 (p,).

    The similarity itself or, where it is so near 1 that float64 has no more digits, 1 / (1 - it), which is at least
    2^19 and infinite for rows of one direction. Either is right but for its last digits. Rows of zeros give 0.
    """
    parts = zip(*(torch.split(rows.expand(len(gallery), -1), 2**12) for rows in (queries, gallery)))
    return torch.cat([_nearness(x.double(), y.double()) for x, y in parts])


def _nearness(x: Tensor, y: Tensor) -> Tensor:
    lengths = torch.linalg.vector_norm(x, dim=1) * torch.linalg.vector_norm(y, dim=1)
    found = (x * y).sum(dim=1) / lengths.masked_fill(lengths == 0, 1)
    near = (found > 1 - 2.0**-20).nonzero()[:, 0]
    x, y = x[near], y[near]
    # What of y is at right angles to x: products of float32 are exact in float64, so that their difference is right.
    pivot = x.abs().argmax(dim=1, keepdim=True)
    aside = (x.gather(1, pivot) * y - x * y.gather(1, pivot)) / x.gather(1, pivot)
    unit = x / torch.linalg.vector_norm(x, dim=1, keepdim=True)
    aside = aside - unit * (unit * aside).sum(dim=1, keepdim=True)
    sines = (aside / torch.linalg.vector_norm(y, dim=1, keepdim=True)).square().sum(dim=1)
    found[near] = (1 + found[near]) / sines  # 1 - cos = sin^2 / (1 + cos)
    return found


def told_apart(found: Tensor, width: int, *, relative: bool) -> Tensor:
    """Whether each of (..., n) that fall along the last dimension is less than the one before by more than rounding.

    found: the `nearness` of rows of this width. relative: nothing in the rows was negative, so that no sum cancelled.
    """
    size = found[..., 1:].abs() if relative else found[..., 1:].abs().clamp(min=1)
    return functional.pad(found[..., :-1] - found[..., 1:] > (width + 16) * 2.0**-51 * size, (1, 0))


def all_positive(*parts: Tensor) -> bool:
    return all(bool(rows.amin() >= 0) for rows in parts)
