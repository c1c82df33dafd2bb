"""Nearest neighbours of sessions."""
