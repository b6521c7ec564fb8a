"""A verdict in a pipeline: two revisions in, one run, and what each kind of pipeline reads out of its verdict.json."""
