"""A discrete simulation of bundles going out to a fleet and reports coming back (docs/scale.md)."""
