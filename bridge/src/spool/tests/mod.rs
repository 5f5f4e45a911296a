//! The spool as its users see it, on a real disk and on one that fails.

mod handles;
