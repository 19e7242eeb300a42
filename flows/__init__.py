"""When: Prefect flows, their triggers, and the event gateway. Events announce, flows drain what is there.

``ingest`` -> ``request-labels`` -> (people) -> ``collect-labels`` -> ``grow`` -> ``retrain`` -> ``publish``;
``sweep`` starts what no event announced. ``prefect.yaml`` says which event starts which flow."""
