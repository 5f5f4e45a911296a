//! What is turned away, whole, and with which answer.

use hyper::{Method, StatusCode};
use prost::Message;
use shopfloor_proto::v1::TelemetryBatchRefused;
use shopfloor_tests::telemetry::{self, batch, material, start, unit};
use shopfloor_tests::{database, postgres};

use crate::MATERIALS;

#[tokio::test]
async fn a_full_quarantine_refuses_the_batch_for_now_and_keeps_nothing_of_it() {
    let url = postgres::database("full");
    let mut config = telemetry::config(&url);
    config.ingest.quarantine_max_rows = 3;
    let api = start(config).await;
    let db = database::connect(&url).await;
    assert_eq!(
        api.commit(&batch("g1", vec![unit(0, 1, 1), unit(1, 1, 1)])).await,
        (0, 0, 2)
    );
    let wanted = batch(
        "g1",
        vec![unit(2, 1, 1), material(3, None, "zinc"), unit(4, 1, 1)],
    );
    let answer = api.post(&wanted).await;
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(answer.headers.contains_key("retry-after"));
    assert_eq!(database::rows(&db, MATERIALS).await, Vec::<String>::new());
    db.batch_execute(
        r#"INSERT INTO machine VALUES (1); INSERT INTO part_information ("timeToProduce") VALUES (1)"#,
    )
    .await
    .expect("reference data");
    assert_eq!(api.commit(&wanted).await, (3, 0, 0));
}

#[tokio::test]
async fn only_the_token_opens_where_one_is_configured() {
    let mut config = telemetry::config(&postgres::database("token"));
    config.internal_token = Some("s3cret".into());
    let api = start(config).await;
    let body = batch("g1", vec![]).encode_to_vec();
    let protobuf = ("content-type", shopfloor_proto::CONTENT_TYPE);
    let path = shopfloor_proto::INGEST_PATH;
    for headers in [vec![protobuf], vec![protobuf, ("authorization", "Bearer s3cres")]] {
        let answer = api.request(Method::POST, path, &headers, body.clone()).await;
        assert_eq!(answer.status, StatusCode::UNAUTHORIZED);
        assert!(answer.headers.contains_key("www-authenticate"));
    }
    let answer = api
        .request(Method::GET, "/internal/v1/quarantine", &[], Vec::new())
        .await;
    assert_eq!(answer.status, StatusCode::UNAUTHORIZED);
    let headers = [protobuf, ("authorization", "Bearer s3cret")];
    let answer = api.request(Method::POST, path, &headers, body).await;
    assert_eq!(answer.status, StatusCode::OK);
}

#[tokio::test]
async fn every_limit_of_a_batch_has_its_answer() {
    let mut config = telemetry::config(&postgres::database("limits"));
    config.ingest.max_batch_records = 10;
    config.ingest.max_batch_bytes = 2_048;
    let api = start(config).await;
    let post = async |content_type: &str, body: Vec<u8>| {
        let headers = [("content-type", content_type)];
        let answer = api
            .request(Method::POST, shopfloor_proto::INGEST_PATH, &headers, body)
            .await;
        (
            answer.status,
            TelemetryBatchRefused::decode(answer.body)
                .expect("a refusal")
                .reason,
        )
    };
    let protobuf = shopfloor_proto::CONTENT_TYPE;
    let (status, reason) = post("application/json", b"{}".to_vec()).await;
    assert_eq!(
        (status, reason.as_str()),
        (
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "content-type: send application/x-protobuf"
        )
    );
    let (status, reason) = post(protobuf, vec![0; 2_049]).await;
    assert_eq!(status, StatusCode::PAYLOAD_TOO_LARGE, "{reason}");
    // Two bytes a record.
    let (status, reason) = post(protobuf, [0x12, 0].repeat(11)).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert_eq!(
        reason,
        "records: more than a batch may hold; send at most 10 at a time"
    );
    let (status, reason) = post(protobuf, vec![0xff; 20]).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert!(reason.starts_with("the body is no TelemetryBatch: "), "{reason}");
}
