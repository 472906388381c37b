"""Search over a published dataset: by words, by meaning, or both.

`Search.over(dataset, embed)` opens it, `Search.search(query)` answers a `Query`.
"""

from nla_core.search.engine import Occurrences, Search
from nla_core.search.query import Filters, Hit, Mode, Near, Query, Results, Within

__all__ = [
    "Filters",
    "Hit",
    "Mode",
    "Near",
    "Occurrences",
    "Query",
    "Results",
    "Search",
    "Within",
]
