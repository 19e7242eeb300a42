"""The pipeline's stages as ``dvc.yaml`` declares them."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Stage:
    """One stage of ``dvc.yaml``: its name, the stages that it needs, and whether it needs a GPU.

    A stage needs a GPU if it says ``meta: {gpu: true}``.
    """

    name: str
    needs: tuple[str, ...]
    gpu: bool = False


def load_stages(repository: Path) -> tuple[Stage, ...]:
    """The stages of the repository's ``dvc.yaml``, each behind those that it needs, otherwise by name.

    DVC itself reads the file: a stage needs another one if it depends on an output of it, or on a folder that
    holds one."""
    from dvc.repo import Repo
    from dvc.stage import PipelineStage
    from networkx import lexicographical_topological_sort

    with Repo(str(repository)) as repo:
        graph = repo.index.graph  # an edge leads from a stage to one that it needs
        stages = [stage for stage in graph if isinstance(stage, PipelineStage)]
        ordered = lexicographical_topological_sort(
            graph.subgraph(stages).reverse(copy=False), key=lambda stage: stage.name
        )
        return tuple(
            Stage(
                stage.name,
                tuple(sorted(needed.name for needed in graph[stage] if isinstance(needed, PipelineStage))),
                bool((stage.meta or {}).get("gpu")),
            )
            for stage in ordered
        )
