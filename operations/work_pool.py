"""Creates on Prefect's server what the deployments of prefect.yaml run in: pool, queue and limit.

Run as a program, because Prefect reads its settings while it is imported. The commands of its own command
line would each load it again: four seconds of a core each.
"""

from contextlib import suppress

from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import GlobalConcurrencyLimitCreate, WorkPoolCreate
from prefect.exceptions import ObjectAlreadyExists
from prefect.workers.process import ProcessWorker

from flows.active_runs import WORK_POOL

TRAINING_QUEUE = "training"  # of retrain and publish, in prefect.yaml
GPU_LIMIT = "gpu"  # whose slot a stage that needs a GPU takes


def create_work_pool() -> None:
    """Create what is missing. Retraining and publishing run one at a time, on all machines together."""
    template = ProcessWorker.get_default_base_job_template()
    pool = WorkPoolCreate(name=WORK_POOL, type=ProcessWorker.type, base_job_template=template)
    with get_client(sync_client=True) as client:
        client.create_work_pool(pool, overwrite=True)
        with suppress(ObjectAlreadyExists):  # a team with several GPUs has set its own
            client.create_global_concurrency_limit(GlobalConcurrencyLimitCreate(name=GPU_LIMIT, limit=1))
        try:
            client.create_work_queue(TRAINING_QUEUE, concurrency_limit=1, work_pool_name=WORK_POOL)
        except ObjectAlreadyExists:
            queue = client.read_work_queue_by_name(TRAINING_QUEUE, work_pool_name=WORK_POOL)
            client.update_work_queue(queue.id, concurrency_limit=1)


if __name__ == "__main__":
    create_work_pool()
