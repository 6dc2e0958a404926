"""Reaches devices: finds them, deploys bundles, runs the harness, fetches and shows reports."""
