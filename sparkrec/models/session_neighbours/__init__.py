"""Nearest neighbours of sessions."""

from sparkrec.models.model import Lists, Model

MODEL = Model("session_neighbours", Lists.SESSIONS, f"{__name__}.program:PROGRAM")
