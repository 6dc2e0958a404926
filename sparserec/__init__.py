"""SparseRec on device: train a sparse recommender on a host, keep learning on a phone."""

__version__ = "0.1.0"
