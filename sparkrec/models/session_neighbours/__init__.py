"""Nearest neighbours of sessions."""

from sparkrec.models.model import Lists, Model

MODEL = Model(
    "session_neighbours",
    Lists.SESSIONS,
    f"{__name__}.program:PROGRAM",
    first_night=True,
    suits="sessions; the first to try beside gru",
    cost="nothing is learnt: the sessions are kept, and each list looks its likes up",
    matter=("neighbours", "decay", "idf"),
)
