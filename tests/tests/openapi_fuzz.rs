//! The OpenAPI document against the API that it describes: schemathesis makes requests out of it, good and bad ones, and
//! finds no 5xx and no answer that the document does not tell of.

use std::process::Command;

use shopfloor::config::Config;
use shopfloor::node::GatewayNode;
use shopfloor_tests::repository;
use shopfloor_tests::rest::Server;

/// Requests for each kind of data of an operation: less than a minute in all.
const MAX_EXAMPLES: &str = "60";
/// Fewer cases would mean that it did not find the operations.
const MIN_CASES: u32 = 1_500;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn schemathesis_finds_no_5xx_and_no_answer_that_the_document_does_not_tell_of() {
    let dir = tempfile::tempdir().unwrap();
    let mut gateway = Config::default();
    gateway.gateway.data_dir = dir.path().to_owned();
    gateway.mqtt.auth.allow_anonymous = true;
    gateway.mqtt.listeners[0].listen = "127.0.0.1:0".parse().unwrap();
    let gateway = GatewayNode::start(&gateway, None).await.unwrap();
    let server = Server::configured(|config| config.mqtt.addresses = vec![gateway.mqtt[0].to_string()]).await;
    // So that ids that it guesses are there.
    for (path, body) in [
        ("/machine", "{}"),
        ("/materials", r#"{"name":"zinc"}"#),
        ("/part-information", r#"{"defaultPrice":1,"timeToProduce":1}"#),
    ] {
        let json = [("content-type".to_owned(), "application/json".to_owned())];
        assert_eq!(
            server
                .send("POST", &format!("/api/v1{path}"), &json, body)
                .await
                .status,
            201
        );
    }
    let mut command = Command::new(repository::schemathesis());
    command
        .current_dir(dir.path())
        .arg("run")
        .arg(format!(
            "http://{}/api/v1/production/production-swagger-spec.json",
            server.address
        ))
        .args([
            "--checks",
            "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance",
        ])
        .args([
            "--phases",
            "examples,coverage,fuzzing",
            "--max-examples",
            MAX_EXAMPLES,
        ])
        // The same requests each time.
        .arg("--generation-deterministic")
        // Endless streams.
        .args(["--exclude-path-regex", "/mqtt/subscribe$|/supply-chain/stream$"])
        .args([
            "--request-timeout",
            "20",
            "--no-color",
            "--warnings",
            "off",
            // CPython's parser, which it uses, is not safe for more.
            "--workers",
            "1",
        ]);
    let output = tokio::task::spawn_blocking(move || command.output())
        .await
        .unwrap()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success(),
        "{said}\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let cases = said
        .lines()
        .find_map(|line| line.trim().split_once(" generated, ")?.0.parse().ok());
    assert!(cases >= Some(MIN_CASES), "{said}");
    gateway.stop().await.unwrap();
}
