//! The MQTT front.
pub mod tap;
