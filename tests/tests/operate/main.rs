//! The commands of an operator at 3 a.m., on gateways that run, that were killed, that were damaged.

mod dead_letters;
mod gateway;
mod open_files;
mod spool;
mod starts;
