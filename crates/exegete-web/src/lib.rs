//! The dashboards: a router over a finished run, without a model.
