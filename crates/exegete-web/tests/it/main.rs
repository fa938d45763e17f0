//! The dashboards from outside: requests to the router over a run that the store's writers made.

mod export;
mod fixture;
mod pages;
mod training;
