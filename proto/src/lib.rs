//! The shopfloor.v1 messages
