"""Running it: the command line, the embedded stack, setup, status and the demo.

The top floor: it may import every room.
"""
