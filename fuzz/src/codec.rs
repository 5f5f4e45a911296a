//! MQTT packets in, and out again.

use shopfloor_broker::fuzzing;

/// The first byte chooses the version, the others are what a client sends.
pub fn run(data: &[u8]) {
    let Some((choice, bytes)) = data.split_first() else {
        return;
    };
    fuzzing::decode_and_encode(bytes, choice & 1 == 1);
}
