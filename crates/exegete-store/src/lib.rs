//! The run directory: corpora, Parquet parts, SQLite notes, accumulators, manifest, lock.
