"""Compiled loops of a GRU's training step: a loss, gates, the update of rows, and a whole step that is made of them.

Each is one pass where PyTorch would need a dozen.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from sparkrec.models.gru.compiled.blas import sgemm
from sparkrec.ranks.loops import loop

_ZERO, _ONE, _TWO = np.float32(0.0), np.float32(1.0), np.float32(2.0)
_NOWHERE = np.float32(-1e15)  # score of a positive that is no negative: it has no weight in the sums
_FLOOR = np.float32(1e-24)  # keeps log(0) out of BPR-max


@loop(reorder=True)
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


@loop(reorder=True)
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


@loop()
def vector_update(
    weight: Any, acc: Any, velocity: Any, grad: Any, scale: Any, rate: Any, momentum: Any, epsilon: Any
) -> None:
    """Adagrad with momentum (``gru.optimizer``) on vectors: weights, accumulator, velocity, gradient, numbers."""
    for j in range(grad.size):
        g = grad[j] * scale
        a = acc[j] + g * g
        v = momentum * velocity[j] - rate * g / np.sqrt(a + epsilon)
        acc[j] = a
        velocity[j] = v
        weight[j] += v


@loop()
def add_rows(table: Any, rows: Any, added: Any) -> None:
    """Adds ``added`` [A, width] to the rows of a table with these numbers, int64 [A]; what is outside, to none."""
    for i in range(rows.size):
        if 0 <= rows[i] < table.shape[0]:
            row, more = table[rows[i]], added[i]
            for j in range(more.size):
                row[j] += more[j]


@loop()
def _top_key(bits: Any) -> Any:
    """The largest of float32 numbers by their bits: integers compare in lanes, and not-a-number is the largest."""
    top = np.int32(-2147483647)
    for j in range(bits.size):
        key = bits[j] ^ ((bits[j] >> np.int32(31)) & np.int32(0x7FFFFFFF))
        top = max(top, key)
    return top


@loop(reorder=True)
def bpr_max(scores: Any, target: Any, count: Any, bpreg: Any, elu: Any) -> Any:
    """BPR-max of ``models.gru.losses`` with its gradient, a row of scores at a time, which stays in the cache.

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


@loop(reorder=True)
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


@loop(reorder=True)
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


# ---- a whole step ----------------------------------------------------------------------------------------------------
# Numbers lie in vectors that are made once (``Room``, the messages), of which matrices are cut, so that a step makes no
# arrays, and ranks read each other's where they were computed. What is cut where is said in one place for each:
# ``message_parts``, ``_layer``, ``_tape``. A message is float32, as most of its parts are; the loss, the number of
# lanes and the places are views of other types into it.

_LINE = 16  # float32 of a cache line
_ROWS_AT_ONCE = 256  # of a table, so that their gradients stay in the cache
_LOSS, _LANES = 0, 2  # where a message begins with the loss, float64, and how many lanes it is of, int32


class Room(NamedTuple):
    """What the loops of a whole step write to, all float32, with room for the largest step."""

    items: np.ndarray  # [R, stride]: of each row the weights, then the bias, then zeros
    tape: np.ndarray  # for each layer what its backward pass needs, then its output
    masks: np.ndarray  # for the embedding and each layer's output [B, width], drawn
    d: np.ndarray  # [2, B widest]
    d_gates: np.ndarray  # [2, B 3 widest]
    grad: np.ndarray  # [_ROWS_AT_ONCE, stride]

    @classmethod
    def of(cls, widths: np.ndarray, n_rows: int, n_lanes: int) -> Room:
        """Room for steps of so many rows and lanes; widths: int64, of the embedding and of each layer."""
        width, widest, stride = int(widths[0]), int(widths.max()), row_stride(int(widths[0]))
        tape = sum(_block_size(n_lanes, int(n), int(w)) for n, w in pairwise(widths))
        return cls(
            np.zeros((n_rows, stride), np.float32),
            np.zeros(tape + n_lanes * width, np.float32),
            np.zeros(n_lanes * int(widths.sum()), np.float32),
            np.zeros((2, n_lanes * widest), np.float32),
            np.zeros((2, 3 * n_lanes * widest), np.float32),
            np.zeros((_ROWS_AT_ONCE, stride), np.float32),
        )


def row_stride(width: int) -> int:
    """Length of a row of weights with its bias, filled up so that rows begin at multiples of 32 bytes."""
    return width // 8 * 8 + 8


@loop()
def _block_size(b: Any, n_in: Any, width: Any) -> Any:
    """Of a layer's part of the tape: input, state, the sums of its gates from either, and four times the state."""
    return b * (n_in + width + 6 * width + 3 * width)


@loop()
def product(a: Any, turn_a: Any, b: Any, turn_b: Any, keep: Any, out: Any) -> None:
    """The product of matrices: out = a b + keep out.

    The loop takes: a float32 [m, k], or with ``turn_a`` [k, m], which is transposed; b float32 [k, n], or with
    ``turn_b`` [n, k]; as ``keep`` 1, or 0, with which ``out`` may hold anything; and out float32 [m, n]. Of all three
    the numbers of a row are adjacent, with any step between rows, and none overlaps ``out``.
    """
    m, n = out.shape
    k = a.shape[0] if turn_a else a.shape[1]
    if not m * n * k:  # BLAS wants rows of some length, though there be none
        for i in range(m if keep == _ZERO else 0):
            out[i] = _ZERO
        return
    # BLAS counts by columns: what it takes for the transpose of ``out`` is the product of the transposes, turned round.
    sizes = np.array([n, m, k, b.strides[0] // 4, a.strides[0] // 4, out.strides[0] // 4], np.int32)
    turned = np.array([ord("T") if turn_b else ord("N"), ord("T") if turn_a else ord("N")], np.uint8)
    factors = np.array([1.0, keep], np.float32)
    of_sizes, of_turned, of_factors = sizes.ctypes.data, turned.ctypes.data, factors.ctypes.data
    sgemm(
        of_turned, of_turned + 1, of_sizes, of_sizes + 4, of_sizes + 8, of_factors, b.ctypes.data, of_sizes + 12,
        a.ctypes.data, of_sizes + 16, of_factors + 4, out.ctypes.data, of_sizes + 20,
    )  # fmt: skip
    sizes[0], turned[0], factors[0] = 0, 0, 0.0  # they live until here: the routine has their addresses alone


@loop()
def _cut(memory: Any, at: Any, rows: Any, columns: Any) -> Any:
    """A matrix of the vector, which begins there."""
    return memory[at : at + rows * columns].reshape(rows, columns)


@loop()
def message_parts(b: Any, n_candidates: Any, width: Any, stride: Any) -> Any:
    """Where in a message the parts are, as (vectors, added, places, d_scores, d_flat).

    A message is float32: the loss and B, the lanes' vectors [B, stride] (with a 1 for the bias), the gradients of
    their inputs [B, width] and these inputs' places in the rows [B], the gradient of their scores [B, C], and that of
    the flat vector.
    """
    vectors = _LINE
    added = vectors + b * stride
    places = added + b * width
    scores = (places + b + _LINE - 1) // _LINE * _LINE
    return vectors, added, places, scores, (scores + b * n_candidates + _LINE - 1) // _LINE * _LINE


@loop()
def _layer(flat: Any, at: Any, n_in: Any, width: Any) -> Any:
    """A layer's weights and biases of a flat vector, and where the next one's begin."""
    weight_hh = at + 3 * width * n_in
    bias = weight_hh + 3 * width * width
    return (
        _cut(flat, at, 3 * width, n_in), _cut(flat, weight_hh, 3 * width, width), flat[bias : bias + 3 * width],
        flat[bias + 3 * width : bias + 6 * width], bias + 6 * width,
    )  # fmt: skip


@loop()
def _tape(tape: Any, at: Any, b: Any, n_in: Any, width: Any) -> Any:
    """A layer's part of the tape: x, h, of_input, of_hidden, reset, update and new, and where its output is."""
    h = at + b * n_in
    sums = h + b * width
    gates = sums + 6 * b * width
    return (
        _cut(tape, at, b, n_in), _cut(tape, h, b, width), _cut(tape, sums, b, 3 * width),
        _cut(tape, sums + 3 * b * width, b, 3 * width), _cut(tape, gates, b, width),
        _cut(tape, gates + b * width, b, width), _cut(tape, gates + 2 * b * width, b, width),
        at + _block_size(b, n_in, width),
    )  # fmt: skip


@loop()
def forward(
    table: Any, bias: Any, flat: Any, widths: Any, batch: Any, hidden: Any, masked: Any, room: Any, message: Any
) -> None:
    """The forward pass of GRU layers over items' rows, which are the input's and the output's: scores of candidates.

    The loop takes: the items' table float32 [n, 3, width] and their bias [n, 3, 1] (of each row weights, accumulator
    and velocity); the layers' weights, flat; widths int64, of the embedding and of each layer; the step as
    ``items.Numbered``; hidden float32, for each layer [lanes of this rank, its width] one after another, which has the
    new states afterwards; masked bool, whether there is a mask in the room for the embedding and each layer's output;
    the room; and the message, of which it writes lanes, vectors, places and, where their gradients are to be, scores.
    """
    n_candidates, n_rows, b = batch.sizes
    width, n_layers, stride = widths[0], widths.size - 1, room.items.shape[1]
    for i in range(n_rows):
        _copy(table[batch.rows[i], 0], room.items[i])
    for i in range(n_candidates):
        room.items[i, width] = bias[batch.rows[i], 0, 0]
    message[_LANES : _LANES + 1].view(np.int32)[0] = b
    of_vectors, _, of_places, of_scores, _ = message_parts(b, n_candidates, width, stride)
    places = message[of_places : of_places + b].view(np.int32)
    lanes = hidden.size // widths[1:].sum()
    x = _cut(room.tape, 0, b, width)
    for i in range(b):
        places[i] = batch.input_row[i]
        _copy(room.items[batch.input_row[i], :width], x[i])
    if masked[0]:
        _masked(x, _cut(room.masks, 0, b, width))
    at, in_flat, in_hidden, in_masks = 0, 0, 0, lanes * width
    for layer in range(n_layers):
        n_in, w = widths[layer], widths[layer + 1]
        weight_ih, weight_hh, bias_ih, bias_hh, in_flat = _layer(flat, in_flat, n_in, w)
        x, h, of_input, of_hidden, reset, update, new, at = _tape(room.tape, at, b, n_in, w)
        states, out = _cut(hidden, in_hidden, lanes, w), _cut(room.tape, at, b, w)
        for i in range(b):
            state, into = states[batch.own[i]], h[i]
            begins = batch.start[i] != 0
            for j in range(w):
                into[j] = _ZERO if begins else state[j]
            _copy(bias_ih, of_input[i])
            _copy(bias_hh, of_hidden[i])
        product(x, False, weight_ih, True, _ONE, of_input)
        product(h, False, weight_hh, True, _ONE, of_hidden)
        gates(of_input, of_hidden, h, reset, update, new, out)
        if masked[layer + 1]:
            _masked(out, _cut(room.masks, in_masks, b, w))
        for i in range(b):
            _copy(out[i], states[batch.own[i]])
        in_hidden += lanes * w
        in_masks += lanes * w
    out, vectors = _cut(room.tape, at, b, width), _cut(message, of_vectors, b, stride)
    for i in range(b):
        _copy(out[i], vectors[i])
        vectors[i, width] = _ONE
        vectors[i, width + 1 :] = _ZERO
    product(vectors, False, room.items[:n_candidates], True, _ZERO, _cut(message, of_scores, b, n_candidates))


@loop()
def _copy(numbers: Any, into: Any) -> None:
    """Writes numbers to where a vector begins: an assignment of slices takes a second to compile."""
    for j in range(numbers.size):
        into[j] = numbers[j]


@loop()
def _masked(x: Any, mask: Any) -> None:
    for i in range(x.shape[0]):
        row, keeps = x[i], mask[i]
        for j in range(row.size):
            row[j] *= keeps[j]


@loop()
def backward(flat: Any, widths: Any, batch: Any, masked: Any, room: Any, message: Any, loss: Any) -> None:
    """The backward pass of ``forward``, from the scores' gradients in the message.

    The loop takes what that one does, and the loss; it writes the loss and the gradients of the inputs and of the flat
    vector to the message.
    """
    n_candidates, _, b = batch.sizes
    width, n_layers, stride = widths[0], widths.size - 1, room.items.shape[1]
    message[_LOSS : _LOSS + 2].view(np.float64)[0] = loss
    _, of_added, _, of_scores, of_flat = message_parts(b, n_candidates, width, stride)
    d_flat = message[of_flat : of_flat + flat.size]
    lanes = room.masks.size // widths.sum()
    d = _cut(room.d[0], 0, b, width)
    product(_cut(message, of_scores, b, n_candidates), False, room.items[:n_candidates, :width], False, _ZERO, d)
    at, in_flat, in_masks, turn = 0, 0, lanes * width, 0
    for layer in range(n_layers):
        n_in, w = widths[layer], widths[layer + 1]
        at += _block_size(b, n_in, w)
        in_flat += 3 * w * (n_in + w + 2)
        in_masks += lanes * w
    for layer in range(n_layers - 1, -1, -1):
        n_in, w = widths[layer], widths[layer + 1]
        at -= _block_size(b, n_in, w)
        in_flat -= 3 * w * (n_in + w + 2)
        in_masks -= lanes * w
        weight_ih = _layer(flat, in_flat, n_in, w)[0]
        d_ih, d_hh, d_bias_ih, d_bias_hh, _ = _layer(d_flat, in_flat, n_in, w)
        x, h, _, of_hidden, reset, update, new, _ = _tape(room.tape, at, b, n_in, w)
        if masked[layer + 1]:
            _masked(d, _cut(room.masks, in_masks, b, w))
        d_i, d_h = _cut(room.d_gates[0], 0, b, 3 * w), _cut(room.d_gates[1], 0, b, 3 * w)
        gates_backward(d, h, reset, update, new, of_hidden[:, 2 * w :], d_i, d_h, d_bias_ih, d_bias_hh)
        product(d_i, True, x, False, _ZERO, d_ih)
        product(d_h, True, h, False, _ZERO, d_hh)
        turn = 1 - turn
        d = _cut(room.d[turn], 0, b, n_in)
        product(d_i, False, weight_ih, False, _ZERO, d)
    if masked[0]:
        _masked(d, _cut(room.masks, 0, b, width))
    _copy(d.ravel(), message[of_added:])


@loop()
def update(
    table: Any, bias: Any, flat: Any, widths: Any, batch: Any, messages: Any, first: Any, end: Any, flat_first: Any,
    flat_end: Any, room: Any, scale: Any, rate: Any, momentum: Any, epsilon: Any,
) -> Any:  # fmt: skip
    """The update of a rank's part of the weights by the messages of all ranks, added in their order.

    The loop takes: the table and bias as ``forward`` does; flat float32 [3, size], of the layers; widths; the step; a
    tuple of the ranks' messages; from which of the step's rows to which, and from which place of the flat vector to
    which, is this rank's part; the room; and the numbers that ``vector_update`` takes. It returns the loss of all.
    """
    n_candidates = batch.sizes[0]
    width, stride = widths[0], room.items.shape[1]
    loss = 0.0
    for message in messages:
        loss += message[_LOSS : _LOSS + 2].view(np.float64)[0]
    for low in range(first, end, _ROWS_AT_ONCE):
        high = min(low + _ROWS_AT_ONCE, end)
        scored = max(0, min(high, n_candidates) - low)
        grad = room.grad[: high - low]
        grad[:] = _ZERO
        for message in messages:
            b = message[_LANES : _LANES + 1].view(np.int32)[0]
            of_vectors, of_added, of_places, of_scores, _ = message_parts(b, n_candidates, width, stride)
            d_scores = _cut(message, of_scores, b, n_candidates)[:, low : low + scored]
            product(d_scores, True, _cut(message, of_vectors, b, stride), False, _ONE, grad[:scored])
            places = message[of_places : of_places + b].view(np.int32)
            add_rows(grad, places - low, _cut(message, of_added, b, width))
        for i in range(low, high):
            state, g = table[batch.rows[i]], grad[i - low]
            vector_update(state[0], state[1], state[2], g[:width], scale, rate, momentum, epsilon)
            if i < n_candidates:
                state = bias[batch.rows[i]]
                vector_update(state[0], state[1], state[2], g[width : width + 1], scale, rate, momentum, epsilon)
    total = room.grad.ravel()
    for low in range(flat_first, flat_end, total.size):
        high = min(low + total.size, flat_end)
        total[: high - low] = _ZERO
        for message in messages:
            b = message[_LANES : _LANES + 1].view(np.int32)[0]
            of_flat = message_parts(b, n_candidates, width, stride)[4]
            part = message[of_flat + low : of_flat + high]
            for j in range(high - low):
                total[j] += part[j]
        vector_update(
            flat[0, low:high], flat[1, low:high], flat[2, low:high], total[: high - low], scale, rate, momentum, epsilon
        )
    return loss
