"""HTTP around `inference`: settings, admission, API, metrics, logs and the process's life cycle."""

import artifact  # noqa: F401 - before onnxruntime: artifact/__init__.py says why
