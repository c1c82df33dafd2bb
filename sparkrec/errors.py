"""The one exception that a user causes and can mend."""


class UserError(Exception):
    """Bad input, configuration or environment: shown as one line, exit code 2, no stack trace.

    Args:
        what: What is wrong, in a few words.
        where: The file, key, table or place that it concerns.
        fix: What the user can do about it.
    """

    def __init__(self, what: str, *, where: str = "", fix: str = "") -> None:
        self.what, self.where, self.fix = what, where, fix
        super().__init__(what, where, fix)

    def __str__(self) -> str:
        line = self.what
        if self.where:
            line += f": {self.where}"
        if self.fix:
            line += f" ({self.fix})"
        return " ".join(line.split())


class NothingToTrain(UserError):  # noqa: N818 - it ends no night
    """What a model could be trained on is not there (yet): the night says so, and goes on without the model."""


class InvariantError(RuntimeError):
    """A count or an identity that must hold did not: a defect or a damaged table, never swallowed."""
