"""The revisions, oldest first; what a release has had is never changed again."""
