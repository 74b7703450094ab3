"""The formats that SAEs are published in, one module each: `load` a folder, and `save` where the
format is written."""
