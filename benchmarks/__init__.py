"""Programs that measure. Each prints what it found for a person and ends stdout with one JSON document."""
