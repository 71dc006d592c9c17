"""The check of a recording: what pictures and poses say of each other, a verdict for every item, a page. `inspect` is the verb."""
