"""Side-by-side measurements; each is ``python -m benchmarks.NAME [--budget small|full]``.

Each prints a table, and as its last line one JSON object ``{"benchmark": ..., "figures": ...}``.
"""
