"""The hybrid of the GRU and the sessions' neighbours."""

from sparkrec.models.model import Lists, Model

MODEL = Model(
    "session_hybrid",
    Lists.SESSIONS,
    f"{__name__}.program:PROGRAM",
    needs=("gru", "session_neighbours"),
    suits="sessions, where a night trains gru and session_neighbours anyway",
    cost="nothing is learnt: both are asked",
    matter=("votes_weight", "power", "own_items"),
)
