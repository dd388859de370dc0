"""HTTP around `inference`: settings, admission, API, metrics, logs and the process's life cycle."""
