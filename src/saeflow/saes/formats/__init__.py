"""The formats that SAEs are published in, one module each, of the name that
`saeflow.config.sae_files` has for it: `load` a folder, and `save` where the format is written."""
