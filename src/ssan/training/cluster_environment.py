"""The processes of a run as Lightning wants to hear of them."""

from lightning.fabric.plugins.environments import ClusterEnvironment

from ssan.processes import Processes


class Launched(ClusterEnvironment):
    """Processes that torchrun or Slurm has started, or the one process that nobody has.

    Given to the Trainer so that it does not look for itself: it would take a shell within Slurm for a part of a run.
    """

    def __init__(self, processes: Processes) -> None:
        self.processes = processes

    @property
    def creates_processes_externally(self) -> bool:
        return True

    @property
    def main_address(self) -> str:
        return self.processes.address

    @property
    def main_port(self) -> int:
        return self.processes.port

    @staticmethod
    def detect() -> bool:
        return False

    def world_size(self) -> int:
        return self.processes.world

    def set_world_size(self, size: int) -> None:
        """The launcher has said it."""

    def global_rank(self) -> int:
        return self.processes.rank

    def set_global_rank(self, rank: int) -> None:
        """The launcher has said it; Lightning's own count is wrong where ranks go round the machines."""

    def local_rank(self) -> int:
        return self.processes.local_rank

    def node_rank(self) -> int:
        return self.processes.machine
