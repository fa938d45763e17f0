//! Brain-inspired modular training (BIMT), and what can be measured about it.
//!
//! Neurons get places, connections cost their length, and neurons change places where that makes the wiring shorter;
//! networks that learn formulas then fall apart into modules that can be seen (Liu, Gan & Tegmark 2023, "Seeing is
//! Believing", arXiv 2305.08746). The study trains the paper's three formulas, climbs its ladder of ablations with a
//! score of modularity in place of the eye, and tries two answers to an objection: that locality makes ensembles of
//! features rather than features built one upon another.
pub mod cost;
pub mod ensemble;
pub mod formula;
pub mod graph;
pub mod greedy;
mod greedy_study;
mod jobs;
pub mod net;
pub mod numbers;
mod ridge;
pub mod scaling;
mod settings;
mod study;
pub mod swap;
pub mod train;
pub mod twister;

pub use greedy_study::GreedyRow;
pub use scaling::{ScalingRow, SmoothnessRow};
pub use settings::{Part, Settings, Task};
pub use study::{FormulaRow, LadderRow, Report, Run, Shown, run};
