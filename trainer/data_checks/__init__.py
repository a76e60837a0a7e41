"""The data doctor: what may be wrong with a data set, and a table without it.

`examine` gathers what the files of one kind of finding each find; `words` says it, `page` shows it, `fix` mends it.
"""
