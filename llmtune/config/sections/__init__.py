"""The sections of a config: one class for each option of each group. Types, bounds and help live here, values in YAML.

The line below each field is its help text. A section never holds a default: the packaged YAML does.
Nothing here imports torch.
"""
