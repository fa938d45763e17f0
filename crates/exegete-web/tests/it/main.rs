//! The dashboards from outside: requests to the router over a run that the store's writers made.

mod browser;
mod damage;
mod dictionaries;
mod export;
mod fixture;
mod hostile;
mod jobs;
mod openapi;
mod pages;
mod personal;
mod rating;
mod site;
mod terminal;
mod training;
mod trying;
