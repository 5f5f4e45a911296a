//! The spool as its users see it, on a real disk and on one that fails.

mod fake;
mod faults;
mod handles;
mod model;
mod process;
