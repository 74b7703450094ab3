"""What a study has of steering, as files of other programs: one module per format.

A module says what it is written from (`READS`, names of options that name files) and what its files
end in (`SUFFIXES`), and writes one (`save`).
"""

EXPORTS = (
    "control_vector",
    "inspect",
    "lm_eval",
)
"""Every format is the module of its name in this folder."""
