"""The session-parallel GRU: its networks, their training and their serving."""

from sparkrec.models.model import Lists, Model

MODEL = Model(
    "gru",
    Lists.SESSIONS,
    f"{__name__}.program:PROGRAM",
    on_ranks=True,
    warm=True,
    first_night=True,
    suits="clicks, plays or purchases in sessions, of known users or nobody",
    cost="the dearest: each epoch walks the sessions event by event",
    matter=("layers", "n_sample", "epochs"),
)
