//! What a restart reads record by record: the spool's envelopes, and the values of the session store.

use shopfloor_bridge::record::Envelope;
use shopfloor_broker::fuzzing;

/// The first byte chooses the kind, the others are a record. One that is accepted is the same when it was written and
/// read again.
pub fn run(data: &[u8]) {
    let Some((kind, bytes)) = data.split_first() else {
        return;
    };
    match kind % 5 {
        0 => envelope(bytes),
        kind => fuzzing::session_record(kind, bytes),
    }
}

fn envelope(bytes: &[u8]) {
    let Ok(envelope) = Envelope::decode(bytes) else {
        return;
    };
    let mut written = Vec::new();
    envelope.encode(&mut written);
    assert_eq!(Envelope::decode(&written).as_ref(), Ok(&envelope));
}
