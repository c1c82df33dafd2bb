"""The session-parallel GRU: its networks, their training and their serving."""

from sparkrec.models.model import Lists, Model

MODEL = Model("gru", Lists.SESSIONS, f"{__name__}.program:PROGRAM", on_ranks=True, warm=True)
