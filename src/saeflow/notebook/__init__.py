"""What a researcher asks for at a prompt or in a notebook, one thought per function.

Each is a thin call of the room that does the work, with texts and names in place of files: the
numbers are those of a study. `import saeflow as sf` offers all of them.
"""
