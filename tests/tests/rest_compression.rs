//! Long answers in gzip, for those who take it.

use std::io::Read;

use serde_json::{Value, json};
use shopfloor_tests::rest::{Answer, Server};

async fn asked(server: &Server, accepted: &str, path: &str) -> Answer {
    server
        .with(&[("accept-encoding", accepted)], "GET", path, Value::Null)
        .await
}

fn unzip(answer: &Answer) -> Value {
    assert_eq!(answer.header("content-encoding"), "gzip");
    let mut text = String::new();
    let mut decoder = flate2::read::GzDecoder::new(&answer.bytes[..]);
    decoder.read_to_string(&mut text).unwrap();
    serde_json::from_str(&text).unwrap()
}

#[tokio::test]
async fn a_long_answer_is_compressed_for_those_who_take_gzip_and_the_same_for_everyone_else() {
    let server = Server::fresh().await;
    server
        .database
        .batch_execute("INSERT INTO machine SELECT generate_series(1, 20000)")
        .await
        .unwrap();
    // One that is written as its rows come, and one that is one body.
    for path in ["/machine", "/machine?pageSize=500"] {
        let plain = server.get(path).await;
        assert_eq!(plain.header("content-encoding"), "");
        for accepted in ["gzip", "br;q=1, gzip;q=0.5", "gzip, deflate, br, zstd"] {
            let zipped = asked(&server, accepted, path).await;
            assert_eq!(
                (zipped.status, unzip(&zipped)),
                (200, plain.body.clone()),
                "{accepted}"
            );
            assert!(
                zipped.bytes.len() < plain.bytes.len() / 3,
                "{}",
                zipped.bytes.len()
            );
            let vary: Vec<_> = zipped.headers.get_all("vary").iter().collect();
            assert!(vary.iter().any(|vary| *vary == "accept-encoding"), "{vary:?}");
        }
        for accepted in ["", "identity", "br", "gzip;q=0", "zstd, br"] {
            let same = asked(&server, accepted, path).await;
            assert_eq!(same.header("content-encoding"), "", "{accepted}");
            assert_eq!(same.bytes, plain.bytes, "{accepted}");
        }
    }
}

#[tokio::test]
async fn a_short_answer_stays_as_it_is_and_keeps_its_strong_tag() {
    let server = Server::fresh().await;
    let zinc = server.json("POST", "/materials", json!({"name": "zinc"})).await;
    assert_eq!(zinc.status, 201);
    for path in ["/materials", "/materials/1"] {
        let short = asked(&server, "gzip", path).await;
        assert_eq!(short.header("content-encoding"), "");
        assert!(short.header("etag").starts_with('"'));
    }
}

#[tokio::test]
async fn the_tag_of_a_compressed_answer_revalidates_it_and_guards_no_write() {
    let server = Server::fresh().await;
    let name = "zinc".repeat(1_000);
    let zinc = server.json("POST", "/materials", json!({"name": name})).await;
    assert_eq!(zinc.status, 201);
    let zipped = asked(&server, "gzip", "/materials/1").await;
    assert_eq!(unzip(&zipped)["name"], name);
    let tag = zipped.header("etag");
    assert!(tag.starts_with("W/\""), "{tag}");
    let headers = [("accept-encoding", "gzip"), ("if-none-match", tag)];
    let again = server.with(&headers, "GET", "/materials/1", Value::Null).await;
    assert_eq!((again.status, again.bytes.len()), (304, 0));
    let guarded = server
        .with(
            &[("if-match", tag)],
            "PATCH",
            "/materials/1",
            json!({"name": "tin"}),
        )
        .await;
    assert_eq!(guarded.status, 412);
}
