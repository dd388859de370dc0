"""The `slipway` command.

Each half of Slipway is imported when its subcommand runs and not before, so that `--help` is quick and serving
needs none of the training libraries. What a command finds goes to stdout, what it has to say about it to stderr.
"""
