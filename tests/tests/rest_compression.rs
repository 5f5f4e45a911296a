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
        for accepted in ["gzip", "br;q=1, gzip;q=0.5", "gzip, deflate, br, zstd", "*"] {
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

/// A material whose representation is long.
async fn long_material() -> Server {
    let server = Server::fresh().await;
    let zinc = server
        .json("POST", "/materials", json!({"name": "zinc".repeat(1_000)}))
        .await;
    assert_eq!(zinc.status, 201);
    server
}

#[tokio::test]
async fn the_tag_of_a_compressed_answer_is_its_own_and_guards_writes_as_the_plain_one_does() {
    let server = long_material().await;
    let plain = server.get("/materials/1").await;
    let zipped = asked(&server, "gzip", "/materials/1").await;
    assert_eq!(unzip(&zipped), plain.body);
    let (tag, plain) = (zipped.header("etag"), plain.header("etag"));
    assert_eq!(tag.replace("-gzip\"", "\""), plain);
    assert_ne!(tag, plain);
    for (known, accepted) in [(tag, "gzip"), (tag, "identity"), (plain, "gzip")] {
        let headers = [("accept-encoding", accepted), ("if-none-match", known)];
        let again = server.with(&headers, "GET", "/materials/1", Value::Null).await;
        assert_eq!((again.status, again.bytes.len()), (304, 0), "{known} {accepted}");
    }
    let rename = |tag: String, name: String| {
        let server = &server;
        async move {
            let headers = [("if-match", tag.as_str()), ("accept-encoding", "gzip")];
            server
                .with(&headers, "PATCH", "/materials/1", json!({"name": name}))
                .await
        }
    };
    let weak = rename(format!("W/{tag}"), "tin".into()).await;
    assert_eq!(weak.status, 412, "a weak tag guards no write");
    let changed = rename(tag.to_owned(), "lead".repeat(1_000)).await;
    assert_eq!(changed.status, 200);
    let stale = rename(tag.to_owned(), "tin".into()).await;
    assert_eq!(stale.status, 412);
    // What the change answered is good for the next one.
    let next = rename(changed.header("etag").to_owned(), "iron".into()).await;
    assert_eq!(next.status, 200, "{}", next.body);
}

#[tokio::test]
async fn head_and_304_have_the_headers_of_the_answer_that_they_stand_for() {
    let server = long_material().await;
    for path in ["/materials/1", "/materials", "/materials?pageSize=5", "/machine"] {
        for accepted in ["gzip", "identity"] {
            let full = asked(&server, accepted, path).await;
            let head = server
                .with(&[("accept-encoding", accepted)], "HEAD", path, Value::Null)
                .await;
            assert_eq!((head.status, head.bytes.len()), (200, 0), "{path} {accepted}");
            let tag = full.header("etag");
            let headers = [("accept-encoding", accepted), ("if-none-match", tag)];
            let known = server.with(&headers, "GET", path, Value::Null).await;
            assert_eq!((known.status, known.bytes.len()), (304, 0), "{path} {accepted}");
            for name in ["etag", "vary"] {
                let all =
                    |answer: &Answer| -> Vec<_> { answer.headers.get_all(name).iter().cloned().collect() };
                assert_eq!(all(&head), all(&full), "{name} of HEAD {path} {accepted}");
                assert_eq!(all(&known), all(&full), "{name} of 304 {path} {accepted}");
            }
            for name in ["content-type", "content-encoding", "content-length"] {
                assert_eq!(
                    head.header(name),
                    full.header(name),
                    "{name} of HEAD {path} {accepted}"
                );
            }
        }
    }
}
