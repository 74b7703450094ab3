"""The command line: ``saeflow STAGE COMMAND``, one command per rule of the workflow."""
