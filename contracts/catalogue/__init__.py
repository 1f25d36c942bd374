"""What the service offers: checkpoints and adapters, model families, schedulers.

catalogue.py      all rows together
reader.py         reads them from a TOML file
quantizations.py  kinds of quantization that a row can name
guidance.py       kinds of guidance: their options and defaults
lines.py          the line of a catalogue file that a problem is on
class_labels.py   the classes of models that are prompted by them
cached.py         rows whose files are in the cache of a hub
families.py       what each model family supports: modes, fields, sizes, defaults
family.py         what such a row says; tasks and modes
family_parts.py   what rows of several families have in common
references.py     what the reference images of an edit are to a family
schedulers.py     schedulers by public name
family_rows/      the rows of families, one file each
rows/             the kinds of row that a catalogue file has
"""
