"""When: Prefect flows, their triggers, and the event gateway. Events announce, flows drain what is there.

``ingest`` -> ``request-labels`` -> (people) -> ``collect-labels`` -> ``grow`` -> ``retrain`` -> ``publish``;
``sweep`` starts what no event announced, ``retain`` removes what was kept for long enough. ``prefect.yaml``
says which event starts which flow."""
