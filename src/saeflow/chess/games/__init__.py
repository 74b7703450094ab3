"""Games of chess as positions: rules, PGN, tables."""
