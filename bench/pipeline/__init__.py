"""One run, stage by stage: `plan`, `fit`, `extract`, `judge`, put together in `execute`.
Knows nothing of other runs, of executors or of tables.
"""
