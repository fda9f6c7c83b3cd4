"""This machine: its device, threads and versions, the signals it gets, what it shows on a terminal, and the processes
that train one run together. Knows no suite and no run.
"""
