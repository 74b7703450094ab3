"""The static report of a study: one page, told from its tables and figures."""
