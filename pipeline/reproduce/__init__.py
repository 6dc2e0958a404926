"""The experiments: which runs there are, running them, their records, and what these say."""
