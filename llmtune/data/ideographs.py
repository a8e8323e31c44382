"""The characters of Chinese and Japanese, which are written without spaces: each counts as a word."""

RANGES = ((0x3041, 0x30FF), (0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0xF900, 0xFAFF), (0x20000, 0x3FFFF))
CLASS = "".join(f"{chr(first)}-{chr(last)}" for first, last in RANGES)  # for within the brackets of a regular expression
