"""Training on several processes or machines under torchrun: docs/distributed.md."""
