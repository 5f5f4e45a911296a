//! The OpenAPI document against the API that it describes: schemathesis makes requests out of it, good and bad ones, and
//! finds no 5xx, no answer that the document does not tell of, and no write that the document allows and the API refuses.

use std::process::Command;

use shopfloor::config::Config;
use shopfloor::node::GatewayNode;
use shopfloor_tests::repository;
use shopfloor_tests::rest::Server;

/// Requests for each kind of data of an operation: less than a minute in all.
const MAX_EXAMPLES: &str = "40";
/// Fewer cases would mean that it did not find the operations.
const MIN_CASES: u32 = 1_500;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn schemathesis_finds_no_5xx_no_undocumented_answer_and_no_valid_write_that_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let mut gateway = Config::default();
    gateway.gateway.data_dir = dir.path().to_owned();
    gateway.mqtt.auth.allow_anonymous = true;
    gateway.mqtt.listeners[0].listen = "127.0.0.1:0".parse().unwrap();
    let gateway = GatewayNode::start(&gateway, None).await.unwrap();
    let server = Server::configured(|config| {
        config.mqtt.addresses = vec![gateway.mqtt[0].to_string()];
        // The document does not know which writes come under a key.
        config.idempotency.max_answer_bytes = 16 * 1024 * 1024;
    })
    .await;
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
        .arg("--config-file")
        .arg(repository::root().join("tests/schemathesis.toml"))
        .arg("run")
        .arg(format!(
            "http://{}/api/v1/production/production-swagger-spec.json",
            server.address
        ))
        .args([
            "--exclude-checks",
            // What the original takes and a stricter service would refuse, and what is not looked for.
            "negative_data_rejection,missing_required_header,unsupported_method,allow_header_conformance,use_after_free,\
             ensure_resource_availability,ignored_auth,object_level_authorization",
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
