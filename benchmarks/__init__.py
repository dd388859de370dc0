"""Programs that measure. Each prints what it found for a person and ends stdout with one JSON document."""

import artifact  # noqa: F401 - before onnxruntime: artifact/__init__.py says why
