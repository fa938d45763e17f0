//! Where model, dictionary and store meet: activation cache, training driver, harvest.
