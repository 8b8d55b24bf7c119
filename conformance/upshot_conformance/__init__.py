"""The conformance suite: one set of tests that every result backend is held to.

Run it with `pytest -p upshot_conformance.plugin --pyargs upshot_conformance --backend=URL`.
"""
