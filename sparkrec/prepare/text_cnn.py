"""Vectors of texts from a convolutional network that has learnt to tell the items' categories by them.

Source: Kim 2014, "Convolutional neural networks for sentence classification" (arXiv 1408.5882): filters over windows of
words, their maximum over the text, dropout, softmax. As the text module of content2vec it is trained on a proxy task,
the category, and its last layer before the softmax is the item's vector (Nedelec et al. 2016, "Content2vec:
specializing joint representations of product images and text for the task of product recommendation", sec. 3.1).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from pyspark.sql import functions as F
from torch import Tensor, nn

from sparkrec.errors import UserError
from sparkrec.log import log_event
from sparkrec.processes import begin_task
from sparkrec.settings.sections import TextConfig
from sparkrec.spark.broadcast import broadcast
from sparkrec.warehouse.tables import ITEM_IDX, VECTOR

if TYPE_CHECKING:
    import pyarrow as pa
    from pyspark.sql import DataFrame

WIDTHS = (3, 4, 5)  # words that a filter spans
DROPOUT, LEARNING_RATE, BATCH = 0.5, 0.002, 128
CATEGORY = "category"
_AT_ONCE = 4096  # texts


class TextCnn(nn.Module):
    """Words, filters of three widths and their maxima, and the softmax's weights."""

    def __init__(self, n_words: int, config: TextConfig, n_categories: int) -> None:
        """Weights as PyTorch has them.

        Args:
            n_words: Size of the vocabulary; word 0 is none, and stays a zero vector.
            config: ``dim`` is the number of filters, ``word_dim`` the words' width.
            n_categories: How many there are.
        """
        super().__init__()
        self.words = nn.Embedding(n_words + 1, config.word_dim, padding_idx=0)
        shares = [config.dim // len(WIDTHS) + (n < config.dim % len(WIDTHS)) for n in range(len(WIDTHS))]
        pairs = [(width, n) for width, n in zip(WIDTHS, shares, strict=True) if n]
        self.filters = nn.ModuleList(nn.Conv1d(config.word_dim, n, width) for width, n in pairs)
        self.last = nn.Linear(config.dim, n_categories)

    def vectors(self, words: Tensor) -> Tensor:
        """The texts' vectors, float32 [n, dim]; words: int64 [n, length], 0 after a text's end."""
        embedded = self.words(words).transpose(1, 2)
        return torch.cat([torch.relu(one(embedded)).amax(2) for one in self.filters], 1)

    def forward(self, words: Tensor, generator: torch.Generator) -> Tensor:
        """The categories' scores in training, float32 [n, categories]; the generator draws what is dropped."""
        found = self.vectors(words)
        kept = torch.rand(found.shape, generator=generator) >= DROPOUT
        return self.last(found * kept / (1 - DROPOUT))  # type: ignore[no-any-return]


def cnn_vectors(words: DataFrame, categories: DataFrame, vocabulary: Sequence[str], config: TextConfig) -> DataFrame:
    """The texts' vectors by a network that has learnt the categories; it learns in one task, in the items' order.

    Args:
        words: ``(item_idx, words array<string>)``.
        categories: ``(item_idx, category string)``, one for each item that has one; the others teach nothing.
        vocabulary: The words that count.
        config: The settings.

    Returns:
        ``(item_idx int, vector array<float>)``, also of items without a category; zeros for a text of no known word.

    Raises:
        UserError: There are fewer than two categories.
    """
    spark, number = words.sparkSession, {word: n + 1 for n, word in enumerate(vocabulary)}
    counts = categories.join(words, ITEM_IDX, "left_semi").groupBy(CATEGORY).count()
    names = [row[CATEGORY] for row in counts.orderBy(F.desc("count"), CATEGORY).collect()]
    if len(names) < 2:
        raise UserError(
            "texts are learnt by the categories that they tell apart",
            where=f"items with a text are of {len(names)} categories",
            fix="set prepare.text.category to a feature of items with more, or another prepare.text.method",
        )
    given = broadcast(spark, (number, {name: n for n, name in enumerate(names)}))
    examples = words.join(categories, ITEM_IDX).orderBy(ITEM_IDX).coalesce(1)

    def learn(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        import pyarrow as pa

        begin_task()
        numbers, labels = given.value
        encoded, wanted = [np.zeros((0, config.words), np.int64)], [np.zeros(0, np.int64)]
        for batch in batches:
            encoded.append(encode(batch.column("words"), numbers, config.words))
            wanted.append(np.array([labels[name] for name in batch.column(CATEGORY).to_pylist()], np.int64))
        network, loss, right = train(np.concatenate(encoded), np.concatenate(wanted), len(numbers), len(labels), config)
        state = network.state_dict()
        values = np.concatenate([part.numpy().ravel() for part in state.values()]).astype(np.float32)
        yield pa.RecordBatch.from_arrays(
            [pa.array([values.tobytes()]), pa.array([loss]), pa.array([right])], names=["weights", "loss", "right"]
        )

    (learnt,) = examples.mapInArrow(learn, "weights binary, loss double, right double").collect()
    log_event("text_cnn", categories=len(names), loss=round(learnt["loss"], 4), right=round(learnt["right"], 4))
    weights = broadcast(spark, np.frombuffer(learnt["weights"], np.float32))

    def apply(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        import pyarrow as pa

        begin_task()
        torch.set_num_threads(1)  # Spark runs a task on each core
        numbers, labels = given.value
        network = _with_weights(TextCnn(len(numbers), config, len(labels)), weights.value)
        for batch in batches:
            encoded = encode(batch.column("words"), numbers, config.words)
            with torch.no_grad():
                parts = torch.from_numpy(encoded).split(_AT_ONCE)
                found = torch.cat([network.vectors(part) for part in parts]) if len(encoded) else torch.zeros(0, 1)
            found[torch.from_numpy(~encoded.any(1))] = 0.0  # of a text of no known word a bias alone would be left
            lists = pa.array(list(found.numpy()), pa.list_(pa.float32()))
            yield pa.RecordBatch.from_arrays([batch.column(ITEM_IDX), lists], names=[ITEM_IDX, VECTOR])

    return words.mapInArrow(apply, f"{ITEM_IDX} int, {VECTOR} array<float>")


def encode(words: pa.Array, numbers: dict[str, int], length: int) -> np.ndarray:
    """The first ``length`` known words of each text as numbers, int64 [n, length]; 0 after the end."""
    found = np.zeros((len(words), length), np.int64)
    for row, text in enumerate(words.to_pylist()):
        known = [numbers[word] for word in text if word in numbers][:length]
        found[row, : len(known)] = known
    return found


def train(
    words: np.ndarray, labels: np.ndarray, n_words: int, n_categories: int, config: TextConfig
) -> tuple[TextCnn, float, float]:
    """Learns the categories; the same for the same seed.

    Args:
        words: int64 [n, length], see ``encode``.
        labels: int64 [n].
        n_words: Size of the vocabulary.
        n_categories: How many there are.
        config: The settings.

    Returns:
        The network; the mean loss of the last epoch (nats), and the share of texts whose category it tells by then.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # sums in one order, whatever the machine
    try:
        generator = torch.Generator().manual_seed(config.seed)
        network = TextCnn(n_words, config, n_categories)
        with torch.no_grad():
            for weight in network.parameters():
                bound = 1 / max(1, weight[0].numel()) ** 0.5 if weight.dim() > 1 else 0.0
                weight.uniform_(-bound, bound, generator=generator)
            network.words.weight[0] = 0.0
        optimizer = torch.optim.Adam(network.parameters(), LEARNING_RATE)
        given, wanted, total, right = torch.from_numpy(words), torch.from_numpy(labels), 0.0, 0
        for _ in range(config.epochs):
            total, right = 0.0, 0
            for rows in torch.randperm(len(given), generator=generator).split(BATCH):
                scores = network(given[rows], generator)
                loss = nn.functional.cross_entropy(scores, wanted[rows], reduction="sum")
                optimizer.zero_grad()
                (loss / len(rows)).backward()
                optimizer.step()
                total, right = total + float(loss.detach()), right + int((scores.argmax(1) == wanted[rows]).sum())
        return network, total / len(given), right / len(given)
    finally:
        torch.set_num_threads(threads)


def _with_weights(network: TextCnn, values: np.ndarray) -> TextCnn:
    """The network with the weights that ``learn`` handed on, side by side."""
    state = network.state_dict()
    parts = torch.from_numpy(values.copy()).split([part.numel() for part in state.values()])
    network.load_state_dict({name: one.view_as(part) for (name, part), one in zip(state.items(), parts, strict=True)})
    return network
