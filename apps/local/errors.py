"""What the `staking` command says when it cannot go on: what is wrong, and what to do about it."""


class LocalError(Exception):
    """A plain message for whoever typed the command; never a traceback."""

    def __init__(self, message: str, remedy: str) -> None:
        self.message = message
        self.remedy = remedy
        super().__init__(f"{message}\n  {remedy}")


class MissingTool(LocalError):
    """A program that the stack runs is not there."""


class PortInUse(LocalError):
    """A port that was asked for by name belongs to somebody else."""


class StartFailed(LocalError):
    """A part did not come up."""


class NotRunning(LocalError):
    """The command needs a running stack."""

    def __init__(self) -> None:
        super().__init__("The stack is not running.", "Start it with: staking up --detach")
