"""The contract between training and serving: what a published model is, and how it is read and written."""

import os

# The one side effect of an import: from its own first import on, onnxruntime reports to its maker what it runs and
# keeps a database of that, unless this was set before. Every package that uses onnxruntime imports this one first.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
