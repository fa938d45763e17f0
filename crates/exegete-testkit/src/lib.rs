//! Golden loader, tolerances, temporary run directories for tests.
