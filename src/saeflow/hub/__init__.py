"""Files of a hub: fetched once, checked, and published."""
