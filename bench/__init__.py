"""The harness: suites in, judged runs out. The only package that imports the other three."""
