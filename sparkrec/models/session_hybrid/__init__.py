"""The hybrid of the GRU and the sessions' neighbours."""

from sparkrec.models.model import Lists, Model

MODEL = Model("session_hybrid", Lists.SESSIONS, f"{__name__}.program:PROGRAM", needs=("gru", "session_neighbours"))
