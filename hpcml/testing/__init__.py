"""Suites that every backend must pass; subclass them in tests of your own (they need pytest)."""
