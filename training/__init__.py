"""From data to a checked artifact: read, prepare, fine-tune, evaluate, gate, publish. Never imported by the service."""
