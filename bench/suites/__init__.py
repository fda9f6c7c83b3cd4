"""What is asked for: a suite's file becomes specs, names become classes, specs become content keys.
Knows what can be run, and runs nothing.
"""
