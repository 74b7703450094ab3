"""Statistics that more than one room needs: intervals by resampling, tests, areas under curves,
false discovery."""
