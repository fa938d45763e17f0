//! The dashboards from outside: requests to the router over a run that the store's writers made.

mod fixture;
mod pages;
mod training;
