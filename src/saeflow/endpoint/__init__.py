"""A model behind an API: questions put to it, bounded in time, size and money, each answer kept."""
