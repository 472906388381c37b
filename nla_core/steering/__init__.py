"""Steering by edited explanations: what an edit adds to the target, and what it then writes."""
