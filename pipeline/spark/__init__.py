"""The steps before training on Apache Spark, for logs that outgrow one machine (docs/scale.md)."""
