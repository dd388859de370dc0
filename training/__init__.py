"""From data to a checked artifact: read, prepare, fine-tune, evaluate, gate, publish. Never imported by the service."""

import artifact  # noqa: F401 - before onnxruntime: artifact/__init__.py says why
