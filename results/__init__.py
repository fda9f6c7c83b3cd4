"""What is kept of a run, and how it is shown: records, run.json, tables, reports, and a copy for Weights & Biases.

It must not know how a run is made: it imports nothing of bench, encoders or protocols.
"""
