"""From artifact to predictions, without HTTP. The gate, `slipway predict` and the service all run this code."""
