"""From data to a checked artifact: read, prepare, fine-tune, evaluate, gate, publish. Never imported by the service."""

import os

import artifact  # noqa: F401 - before onnxruntime: artifact/__init__.py says why

# transformers imports comet_ml wherever that is installed, and half of those imports report errors to its maker from
# then on, asked for or not, unless this was set before.
os.environ.setdefault("COMET_ERROR_TRACKING_ENABLE", "false")
