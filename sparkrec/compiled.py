"""Loops of a GRU's training step on the CPU, compiled by numba: one pass where PyTorch would need a dozen.

They are compiled at their first call, which takes a second or two each, and kept in numba's cache beside this file
where that can be written; ``load`` makes all of them ready before a training begins. GPUs run PyTorch's operations
instead, which the callers hold beside these.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba
import numpy as np

_ZERO, _ONE, _TWO = np.float32(0.0), np.float32(1.0), np.float32(2.0)
_NOWHERE = np.float32(-1e15)  # score of a positive that is no negative: it has no weight in the sums
_FLOOR = np.float32(1e-24)  # keeps log(0) out of BPR-max


def _compiled(reorder: bool = False, **options: Any) -> Callable[[Callable[..., Any]], Any]:
    """A decorator for loops. With numpy's error model a division does not stop a loop of several lanes.

    Args:
        reorder: Whether sums may be reordered; not-a-number and infinity stay what they are.
        options: Further ones of ``numba.njit``.
    """
    options |= {"nogil": True, "error_model": "numpy"}
    options["fastmath"] = {"reassoc", "contract", "nsz", "arcp"} if reorder else False

    def decorate(loop: Callable[..., Any]) -> Any:
        try:
            return numba.njit(cache=True, **options)(loop)
        except RuntimeError:  # no folder that the cache can be written to
            return numba.njit(**options)(loop)

    return decorate


@_compiled(reorder=True, inline="always")
def _exp(x: Any) -> Any:
    """The exponential of float32 for loops of several lanes, in which PyTorch's and numpy's cannot be called.

    exp(x) = 2^n exp(f) with |f| ≤ ln(2) / 2, and a polynomial for exp(f) (Cephes, expf.c), correct to 2 units in the
    last place; what lies below −87 or above 88 is taken for these numbers.
    """
    x = np.float32(-87.0) if x < np.float32(-87.0) else x  # these leave not-a-number what it is
    x = np.float32(88.0) if x > np.float32(88.0) else x
    n = np.floor((x if x == x else _ZERO) * np.float32(1.44269504) + np.float32(0.5))
    f = x - n * np.float32(0.693359375) + n * np.float32(2.12194440e-4)
    p = np.float32(1.9875691500e-4)
    p = p * f + np.float32(1.3981999507e-3)
    p = p * f + np.float32(8.3334519073e-3)
    p = p * f + np.float32(4.1665795894e-2)
    p = p * f + np.float32(1.6666665459e-1)
    p = p * f + np.float32(5.0000001201e-1)
    p = p * f * f + f + _ONE
    return p * np.int32((np.int32(n) + np.int32(127)) << np.int32(23)).view(np.float32)


@_compiled(reorder=True, inline="always")
def _tanh(x: Any) -> Any:
    """The hyperbolic tangent of float32, near 0 by a polynomial (Cephes, tanhf.c), elsewhere by the exponential."""
    z = x * x
    p = np.float32(-5.70498872745e-3)
    p = p * z + np.float32(2.06390887954e-2)
    p = p * z - np.float32(5.37397155531e-2)
    p = p * z + np.float32(1.33314422036e-1)
    p = p * z - np.float32(3.33332819422e-1)
    near = p * z * x + x
    far = _ONE - _TWO / (_ONE + _exp(_TWO * x))
    return near if abs(x) < np.float32(0.625) else far


@_compiled(inline="always")
def vector_update(
    weight: Any, acc: Any, velocity: Any, grad: Any, scale: Any, rate: Any, momentum: Any, epsilon: Any
) -> None:
    """Adagrad with momentum (``training.optimizer``) on vectors: weights, accumulator, velocity, gradient, numbers."""
    for j in range(grad.size):
        g = grad[j] * scale
        a = acc[j] + g * g
        v = momentum * velocity[j] - rate * g / np.sqrt(a + epsilon)
        acc[j] = a
        velocity[j] = v
        weight[j] += v


@_compiled()
def row_update(table: Any, rows: Any, grad: Any, scale: Any, rate: Any, momentum: Any, epsilon: Any) -> None:
    """The same on the rows of a table [n, 3, width], whose numbers are given, by a gradient for each of them."""
    for i in range(rows.size):
        state = table[rows[i]]
        vector_update(state[0], state[1], state[2], grad[i], scale, rate, momentum, epsilon)


@_compiled()
def add_rows(table: Any, rows: Any, added: Any) -> None:
    """Adds ``added`` [A, width] to the rows of a table with these numbers, int64 [A]; what is outside, to none."""
    for i in range(rows.size):
        if 0 <= rows[i] < table.shape[0]:
            row, more = table[rows[i]], added[i]
            for j in range(more.size):
                row[j] += more[j]


@_compiled(inline="always")
def _number(items: Any, seen: Any, given: Any, distinct: Any, place: Any) -> Any:
    """Numbers items that have none in ``seen`` from ``given`` on; returns how many numbers there are then.

    A new item goes to its number in ``distinct``, and the number of each of the items into ``place``.
    """
    for i in range(items.size):
        item = items[i]
        if seen[item] < 0:
            seen[item] = given
            distinct[given] = item
            given += 1
        place[i] = seen[item]
    return given


@_compiled()
def step_rows(
    inputs: Any, targets: Any, negatives: Any, here: Any, seen: Any, rows: Any, distinct: Any, count: Any, input: Any,
    input_row: Any, target: Any,
) -> Any:  # fmt: skip
    """The distinct items of a step, in the order of their first occurrence.

    The loop takes: inputs int64 [back + 1, L], targets [L] and negatives [S], of a catalogue of n items; here int64
    [B], the lanes of this rank; seen int32 [n], −1 everywhere, which it is again when the loop returns; and arrays to
    write to: rows int64 [(back + 1) L + L + S] (the distinct targets and negatives, then the inputs that are none of
    them), distinct int64 [(back + 1) L] (the distinct inputs), count float32 [2, L + S] (how often each of the first
    rows is a target, and a negative), and of this rank's lanes the places input int64 [back + 1, B] of the inputs in
    the distinct ones, input_row int64 [back + 1, B] of the inputs in the rows, and target int64 [B] in the rows.
    It returns how many rows there are of the first kind, of both, and how many distinct inputs.
    """
    flat = inputs.ravel()
    of_input, of_target = np.empty(flat.size, np.int64), np.empty(targets.size, np.int64)
    of_negative = np.empty(negatives.size, np.int64)
    n_inputs = _number(flat, seen, 0, distinct, of_input)
    for i in range(n_inputs):
        seen[distinct[i]] = -1
    input[:, :] = of_input.reshape(inputs.shape)[:, here]
    n_candidates = _number(negatives, seen, _number(targets, seen, 0, rows, of_target), rows, of_negative)
    for places, times in ((of_target, count[0]), (of_negative, count[1])):
        times[:n_candidates] = 0.0
        for i in range(places.size):
            times[places[i]] += 1.0
    n_rows = _number(flat, seen, n_candidates, rows, of_input)
    for i in range(n_rows):
        seen[rows[i]] = -1
    input_row[:, :] = of_input.reshape(inputs.shape)[:, here]
    target[:] = of_target[here]
    return n_candidates, n_rows, n_inputs


@_compiled()
def popular_items(u: Any, cumulative: Any, first: Any, last: Any, items: Any) -> None:
    """The items at places of a cumulative distribution, for ``training.sampling``.

    The loop takes: u float64 [S] in [0, 1); cumulative float64 [n]; first int32 [cells + 1], the item at the lower
    border of each of the equal cells of [0, 1); the last item there is; and the array int64 [S] to write to.
    """
    total, cells = cumulative[-1], first.size - 1
    for i in range(u.size):
        cell = int(u[i] * cells)
        low, high = first[cell], first[cell + 1]
        if low != high:
            place = u[i] * total
            while low < high:  # the first item whose sum is above the place
                middle = (low + high) // 2
                if cumulative[middle] > place:
                    high = middle
                else:
                    low = middle + 1
        items[i] = min(low, last)


@_compiled()
def dropout(lanes: Any, key: Any, keep: Any, value: Any, mask: Any) -> None:
    """Dropout masks that depend on a lane, a column and a key alone, so on no rank.

    The loop takes: lanes int64 [B]; the key; the share to keep; the value of what is kept; and the mask float32
    [B, width] to write to. Each place is kept where a hash of (key, lane, column), the finaliser of MurmurHash3
    (Appleby 2011), lies below the share of 2^32.
    """
    width = np.uint32(mask.shape[1])
    low, high = np.uint32(key & np.uint64(0xFFFFFFFF)), np.uint32(key >> np.uint64(32))
    limit = np.uint32(min(keep * 4294967296.0, 4294967295.0))
    for i in range(lanes.size):
        first = np.uint32(lanes[i]) * width
        for j in range(mask.shape[1]):
            h = np.uint32((first + np.uint32(j)) * np.uint32(0x9E3779B1)) ^ low
            h ^= h >> np.uint32(16)
            h = np.uint32(h * np.uint32(0x85EBCA6B))
            h ^= (h >> np.uint32(13)) ^ high
            h = np.uint32(h * np.uint32(0xC2B2AE35))
            h ^= h >> np.uint32(16)
            mask[i, j] = value if h < limit else np.float32(0.0)


@_compiled(inline="always")
def _top_key(bits: Any) -> Any:
    """The largest of float32 numbers by their bits: integers compare in lanes, and not-a-number is the largest."""
    top = np.int32(-2147483647)
    for j in range(bits.size):
        key = bits[j] ^ ((bits[j] >> np.int32(31)) & np.int32(0x7FFFFFFF))
        top = max(top, key)
    return top


@_compiled(reorder=True)
def bpr_max(scores: Any, target: Any, count: Any, bpreg: Any, elu: Any) -> Any:
    """BPR-max of ``models.losses`` with its gradient, a row of scores at a time, which stays in the cache.

    The loop takes: scores float32 [B, C], C > 1, over which it writes the gradient; target int64 [B]; count float32
    [C], which is as before when it returns; bpreg; and the α of the ELU, or 0. It returns the loss.
    """
    total, n = 0.0, scores.shape[1]
    weights, squares = np.empty(n, np.float32), np.empty(n, np.float32)
    for b in range(scores.shape[0]):
        r, c = scores[b], target[b]
        own = r[c]
        count[c] -= _ONE  # how often the target is a negative, too
        if count[c] <= _ZERO:
            r[c] = _NOWHERE
        key = _top_key(r.view(np.int32))
        top = np.int32(key ^ ((key >> np.int32(31)) & np.int32(0x7FFFFFFF))).view(np.float32)
        if elu > _ZERO:
            top = top if top > _ZERO else elu * (_exp(top) - _ONE)
            own = own if own > _ZERO else elu * (_exp(own) - _ONE)
        ahead = _exp(min(top - own, np.float32(80.0)))
        total_w, won, lost, reg = _ZERO, _ZERO, _ZERO, _ZERO
        for j in range(n):
            x = r[j]
            if elu > _ZERO:
                x = x if x > _ZERO else elu * (_exp(min(x, _ZERO)) - _ONE)
                r[j] = x
            e = _exp(x - top)
            sigma = _ONE / (_ONE + e * ahead)
            w = e * count[j]
            square = sigma * sigma
            total_w += w
            won += w * sigma
            lost += w * square
            reg += w * x * x
            weights[j] = w
            squares[j] = square
        inverse = _ONE / total_w
        won, lost, reg = won * inverse + _FLOOR, lost * inverse, reg * inverse
        total += bpreg * reg - np.log(won)
        flat, bent, pair = (_ONE - bpreg * reg) * inverse, bpreg * inverse, inverse / won
        for j in range(n):
            x = r[j]
            d = weights[j] * (flat + bent * x * (x + _TWO) - pair * squares[j])
            r[j] = d if elu <= _ZERO or x > _ZERO else d * (x + elu)
        d = lost / won - _ONE
        r[c] += d if elu <= _ZERO or own > _ZERO else d * (own + elu)
        count[c] += _ONE
    return total


@_compiled(reorder=True)
def gates(of_input: Any, of_hidden: Any, h: Any, reset: Any, update: Any, new: Any, out: Any) -> None:
    """A GRU layer from its gates' sums on, as ``torch.nn.GRUCell``: h' = (1 - z) n + z h.

    The loop takes, all float32: of_input [B, 3H] and of_hidden [B, 3H] (reset, update, new) and h [B, H]; and the
    arrays [B, H] to write to: reset, update, new and h'.
    """
    width = h.shape[1]
    for b in range(h.shape[0]):
        i, hidden = of_input[b], of_hidden[b]
        for j in range(width):
            r = _ONE / (_ONE + _exp(-(i[j] + hidden[j])))
            z = _ONE / (_ONE + _exp(-(i[width + j] + hidden[width + j])))
            n = _tanh(i[2 * width + j] + r * hidden[2 * width + j])
            reset[b, j], update[b, j], new[b, j] = r, z, n
            out[b, j] = n + z * (h[b, j] - n)


@_compiled(reorder=True)
def gates_backward(
    d_out: Any, h: Any, reset: Any, update: Any, new: Any, hidden_new: Any, d_input: Any, d_hidden: Any,
    sum_input: Any, sum_hidden: Any,
) -> None:  # fmt: skip
    """The gradients of the gates' sums of ``gates``.

    The loop takes, all float32: d_out, h, reset, update and new [B, H], hidden_new [B, H] (the last third of
    of_hidden); and arrays to write to: the gradients of of_input and of of_hidden, [B, 3H], and their sums [3H].
    """
    width = h.shape[1]
    sum_input[:] = 0.0
    sum_hidden[:] = 0.0
    for b in range(h.shape[0]):
        for j in range(width):
            d, r, z, n = d_out[b, j], reset[b, j], update[b, j], new[b, j]
            d_new = d * (_ONE - z) * (_ONE - n * n)
            d_update = d * (h[b, j] - n) * z * (_ONE - z)
            d_reset = d_new * hidden_new[b, j] * r * (_ONE - r)
            d_input[b, j], d_input[b, width + j], d_input[b, 2 * width + j] = d_reset, d_update, d_new
            d_hidden[b, j], d_hidden[b, width + j], d_hidden[b, 2 * width + j] = d_reset, d_update, d_new * r
        for j in range(3 * width):
            sum_input[j] += d_input[b, j]
            sum_hidden[j] += d_hidden[b, j]


def load(loss: str) -> None:
    """Calls the loops of a training with this loss on next to nothing, so that none is compiled in its midst."""
    rows, vector = np.zeros((1, 3), np.float32), np.zeros(3, np.float32)
    seen, numbers = np.full(1, -1, np.int32), np.zeros(1, np.int64)
    four = [np.float32(0.0)] * 4
    vector_update(*[vector.copy() for _ in range(4)], *four)
    row_update(np.zeros((1, 3, 3), np.float32), numbers, rows, *four)
    add_rows(rows.copy(), numbers, rows)
    counts = np.zeros((2, 2), np.float32)
    step_rows(numbers[None], numbers, numbers, numbers, seen, np.zeros(3, np.int64), numbers.copy(), counts,
              numbers[None].copy(), numbers[None].copy(), numbers.copy())  # fmt: skip
    popular_items(np.zeros(1), np.ones(1), np.zeros(2, np.int32), 0, numbers.copy())
    dropout(numbers, np.uint64(0), 0.5, np.float32(2.0), rows.copy())
    if loss == "bpr-max":
        bpr_max(rows.copy(), numbers, np.ones(3, np.float32), np.float32(0.0), np.float32(0.0))
    h, sums = np.zeros((2, 1), np.float32), np.zeros((2, 3), np.float32)
    gates(sums, sums, h, *[h.copy() for _ in range(4)])
    gates_backward(h, h, h, h, h, sums[:, 2:], sums.copy(), sums.copy(), vector.copy(), vector.copy())
