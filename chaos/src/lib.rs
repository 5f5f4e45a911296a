//! The crash suite: faults under load against the real binary, real Kafka and real Postgres, and an auditor that
//! holds every acknowledged unit.
//!
//! Layout, in the order in which a run passes it:
//!
//! - [`fault`]: what can be done to the whole, by name; [`schedule`]: which comes when, by the seed.
//! - [`rig`]: the whole, with short timeouts and wires that can hang.
//! - [`disk`], [`clock`], [`segments`]: what the gateway writes to, goes by, and has written.
//! - [`fleet`]: the load; [`unit`]: what is followed from a device to both ends.
//! - [`inflict`]: each fault in action.
//! - [`audit`]: what was acknowledged against what Kafka and Postgres hold.
//! - [`mod@run`]: cycle after cycle; [`report`]: the table.
//! - [`outage`]: one long outage of Kafka instead, and what it does to latency, memory and the backlog.
//!
//! Promise: a unit that a device was told to be safe and that one end lacks is found, whatever happened meanwhile, and
//! blamed on the fault of its cycle. The same seed does the same faults in the same order; what is under way when one
//! strikes is chance.

pub mod audit;
pub mod clock;
pub mod disk;
pub mod fault;
pub mod fleet;
pub mod inflict;
pub mod outage;
pub mod report;
pub mod rig;
pub mod run;
pub mod schedule;
pub mod segments;
pub mod unit;
