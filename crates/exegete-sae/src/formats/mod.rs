//! Layouts of dictionaries on disk, one file each.

pub mod saelens;
