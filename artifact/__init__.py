"""The contract between training and serving: what a published model is, and how it is read and written."""
