"""The desired-state tree on disk: one table describes it, one reader checks it, one editor changes it."""
