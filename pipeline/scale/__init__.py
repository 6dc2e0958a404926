"""What ranks cost: measured steps, a model fitted to them, memory (docs/scale.md)."""
