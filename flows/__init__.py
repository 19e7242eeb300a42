"""When: Prefect flows, their triggers, and the event gateway. Events announce, flows drain what is there.

``ingest`` -> ``request-labels`` -> (people) -> ``collect-labels`` -> ``grow`` -> ``retrain`` -> ``publish``;
``sweep`` starts what no event announced, ``retain`` removes what was kept for long enough. ``prefect.yaml``
says which event starts which flow."""

from trashnet.logs import log_what_python_prints

log_what_python_prints()  # a run's process is Prefect's: this is where it comes by our code
