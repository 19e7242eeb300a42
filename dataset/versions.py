"""Dataset versions: the clone's log as a commit and a tag that everybody can pull."""

from dataset.turn_files import version_of_turn
from trashnet.clone import Clone

DATA = "data"  # the folder of the log in the clone


def commit_version(clone: Clone, turn: str, message: str) -> str:
    """Make the clone's log, whose last turn this is, a dataset version at the origin; its name."""
    version = version_of_turn(turn)
    clone.dvc("add", DATA)
    clone.dvc("push", f"{DATA}.dvc")  # before the commit: a version never names data that nobody can pull
    clone.commit(f"Dataset {version}: {message}", f"{DATA}.dvc")
    clone.tag(version)
    clone.push()
    return version
