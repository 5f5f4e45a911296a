//! Paths, methods and bodies as the original took them, and the document that describes them.

use std::io::Write;

use serde_json::json;

use crate::server::Server;

#[tokio::test]
async fn a_method_that_a_fixed_path_has_not_is_asked_of_the_path_with_an_id() {
    let server = Server::fresh().await;
    for path in [
        "/materials/many-materials",
        "/part-information/many-part-informations",
        "/machine/many-machines",
        "/materials/prices",
    ] {
        let text = "Validation failed (numeric string is expected)";
        assert_eq!(server.get(path).await.refusal(), (400, json!(text)), "{path}");
    }
    let text = "Validation failed (uuid v 4 is expected)";
    assert_eq!(
        server.get("/supply-chain/many-supply-chain").await.refusal(),
        (400, json!(text))
    );
    let unknown = server.get("/nothing/here?a=1").await;
    assert_eq!(
        unknown.refusal(),
        (404, json!("Cannot GET /api/v1/nothing/here?a=1"))
    );
    let patch = server.json("PATCH", "/machine/1", json!({})).await;
    assert_eq!(patch.refusal(), (404, json!("Cannot PATCH /api/v1/machine/1")));
    assert_eq!(
        server.send("GET", "/", &[], "").await.refusal(),
        (404, json!("Cannot GET /"))
    );
}

#[tokio::test]
async fn no_file_of_the_server_is_served() {
    let server = Server::fresh().await;
    for path in [
        "/.env",
        "/.git/config",
        "/package.json",
        "/Cargo.toml",
        "/api/v1/.env",
        "/api/v1/package.json",
        "/api/v1/production/.gitignore",
        "/api/v1/production/package.json",
        "/api/v1/production/../../../Cargo.toml",
        "/api/v1/production/..%2F..%2FCargo.toml",
        "/api/v1/production/%2e%2e/%2e%2e/etc/passwd",
    ] {
        assert_eq!(server.send("GET", path, &[], "").await.status, 404, "{path}");
    }
}

#[tokio::test]
async fn a_body_may_be_compressed_or_urlencoded_and_is_bounded_either_way() {
    let server = Server::fresh().await;
    let gzip = |text: String| {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(text.as_bytes()).unwrap();
        encoder.finish().unwrap()
    };
    let header = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let headers = [
        header("content-type", "application/json"),
        header("content-encoding", "gzip"),
    ];
    let post = |body: Vec<u8>| server.send("POST", "/api/v1/materials", &headers, body);
    assert_eq!(
        post(gzip(json!({"name": "gz"}).to_string())).await.body["name"],
        "gz"
    );
    let bomb = gzip(json!({"name": "y".repeat(10_000_000)}).to_string());
    assert_eq!(
        post(bomb).await.refusal(),
        (413, json!("request entity too large"))
    );
    assert_eq!(post(b"no gzip".to_vec()).await.status, 400);
    let unknown = [
        header("content-type", "application/json"),
        header("content-encoding", "br"),
    ];
    let answer = server.send("POST", "/api/v1/materials", &unknown, "{}").await;
    assert_eq!(
        answer.refusal(),
        (415, json!("unsupported content encoding \"br\""))
    );
    let form = [header("content-type", "application/x-www-form-urlencoded")];
    let body = "materials[0][name]=a%20b&materials[1][name]=c";
    let created = server
        .send("POST", "/api/v1/materials/many-materials", &form, body)
        .await;
    assert_eq!((created.status, &created.body[0]["name"]), (201, &json!("a b")));
}

#[tokio::test]
async fn every_operation_that_the_document_describes_is_there_under_its_address() {
    let server = Server::fresh().await;
    let document = server.get("/production/production-swagger-spec.json").await;
    assert_eq!(
        (document.status, &document.body["openapi"]),
        (200, &json!("3.1.0"))
    );
    let mut described = 0;
    for (path, methods) in document.body["paths"].as_object().unwrap() {
        let path = path
            .replace("{id}", "1")
            .replace("{materialId}", "1")
            .replace("{uuid}", "1");
        for method in methods.as_object().unwrap().keys() {
            described += 1;
            // Ends only with its client; `rest_stream` is about it.
            if path.ends_with("/stream") {
                continue;
            }
            let answer = server.send(&method.to_uppercase(), &path, &[], "").await;
            let message = answer.body["message"].to_string();
            assert!(!message.contains("Cannot "), "{method} {path}: {message}");
            let statuses = methods[method]["responses"].as_object().unwrap();
            assert!(
                statuses.contains_key(&answer.status.to_string()),
                "{method} {path}: {}",
                answer.status
            );
        }
    }
    assert_eq!(described, 40, "the contract's operations");
    let page = server.page("/api/v1/production").await;
    assert!(
        page.contains("swagger-ui.css") && page.contains("<base href=\"/api/v1/production/\">"),
        "{page}"
    );
    assert!(
        server
            .page("/api/v1/production/swagger-initializer.js")
            .await
            .contains("production-swagger-spec.json")
    );
    let nothing = server.get("/production/../../etc/passwd").await;
    assert_eq!(nothing.status, 404);
}
