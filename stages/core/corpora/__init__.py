"""Corpora: each module knows how to obtain one kind, how to read ids, groups and labels from it, and its licence."""
