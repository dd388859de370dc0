"""One file per task: JSON to model inputs, model outputs to JSON. Pure functions, no I/O."""
