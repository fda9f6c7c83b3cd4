"""What the command line offers besides running suites, a file each. They do not import one another's internals, nor
`launch`.
"""
