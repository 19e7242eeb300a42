"""When: Prefect flows, their triggers, and the event gateway. Events ring, flows drain: a flow looks at what is really there.

``ingest`` -> ``request-labels`` -> (people) -> ``collect-labels`` -> ``grow`` -> ``retrain`` -> ``publish``;
``sweep`` starts what no event announced. ``prefect.yaml`` says what starts what.
"""
