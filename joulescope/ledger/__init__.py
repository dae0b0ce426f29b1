"""The ledger: finished requests and minutes of engines, kept as Parquet files in a folder or an object store.

``docs/ledger.md`` says what lies where. What is not yet a Parquet file lies in segments (:mod:`.frames`,
:mod:`.segment`), which are written at every flush and turned into Parquet when they are old or large enough
(:mod:`.convert`). :mod:`.writer` does both, :mod:`.recovery` takes over what a dead process left,
:mod:`.retention` bounds it all, and :mod:`.read` reads it. pyarrow and fsspec are imported in functions: a
sidecar without a ledger never loads them.
"""
