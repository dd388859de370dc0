"""From artifact to predictions, without HTTP. The gate, `slipway predict` and the service all run this code."""

import artifact  # noqa: F401 - before onnxruntime: artifact/__init__.py says why
