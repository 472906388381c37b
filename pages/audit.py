"""Audit."""

from nla_core.ui import shell

shell.ensure()
