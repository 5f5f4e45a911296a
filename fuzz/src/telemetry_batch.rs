//! What a gateway posts to the production API.

use prost::Message;
use shopfloor_api::telemetry::check;
use shopfloor_proto::v1::TelemetryBatch;

const MAX_RECORDS: usize = 100;

/// A batch that is accepted is accepted again as it was understood.
pub fn run(data: &[u8]) {
    let Ok(batch) = TelemetryBatch::decode(data) else {
        return;
    };
    let Ok(batch) = check(batch, MAX_RECORDS) else {
        return;
    };
    assert!(batch.records.len() <= MAX_RECORDS);
    let again = TelemetryBatch {
        gateway: batch.gateway.clone(),
        records: batch.records.iter().map(|record| record.to_wire()).collect(),
    };
    assert_eq!(check(again, MAX_RECORDS), Ok(batch));
}
