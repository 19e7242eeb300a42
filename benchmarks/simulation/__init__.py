"""A seeded simulation of a fleet's uploads and of what happens to the events that announce them."""
