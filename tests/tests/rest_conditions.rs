//! Entity tags: a copy that is still good is not sent again, and a write that read something else changes nothing.

use serde_json::{Value, json};
use shopfloor_tests::rest::{Answer, Server};

async fn made(server: &Server, path: &str, body: Value) -> Answer {
    let answer = server.json("POST", path, body).await;
    assert_eq!(answer.status, 201, "{}", answer.body);
    answer
}

/// A server with a row of every kind; the answer is each row's own address.
async fn factory() -> (Server, Vec<String>) {
    let server = Server::fresh().await;
    made(&server, "/materials", json!({"name": "zinc"})).await;
    made(
        &server,
        "/part-information",
        json!({"defaultPrice": 10.5, "timeToProduce": 60}),
    )
    .await;
    made(&server, "/machine", json!({})).await;
    let price = json!({"price": 1.5, "date": "15/02/2020"});
    made(&server, "/materials/prices/1", price).await;
    let unit = json!({
        "timeOfProduction": "2024-05-01T10:00:00.250Z", "order": 7, "var5": true, "machineId": 1, "partId": 1,
    });
    let unit = made(&server, "/supply-chain", unit).await;
    let unit = format!("/supply-chain/{}", unit.body["id"].as_str().unwrap());
    let fixed = [
        "/materials/1",
        "/part-information/1",
        "/machine/1",
        "/materials/prices/1",
    ];
    let addresses = fixed.map(str::to_owned).into_iter().chain([unit]).collect();
    (server, addresses)
}

#[tokio::test]
async fn a_copy_that_is_still_good_is_not_sent_again() {
    let (server, addresses) = factory().await;
    let lists = ["/materials", "/part-information", "/machine", "/supply-chain"].map(str::to_owned);
    for address in addresses.into_iter().chain(lists) {
        let first = server.get(&address).await;
        let tag = first.header("etag").to_owned();
        assert!(tag.starts_with('"') && tag.len() > 20, "{address}: {tag:?}");
        for known in [
            tag.clone(),
            format!("W/{tag}"),
            format!("\"other\", {tag}"),
            "*".into(),
        ] {
            let again = server
                .with(&[("if-none-match", &known)], "GET", &address, Value::Null)
                .await;
            assert_eq!(
                (again.status, again.header("etag")),
                (304, tag.as_str()),
                "{address}"
            );
            assert!(again.bytes.is_empty(), "{address}");
        }
        let other = server
            .with(&[("if-none-match", "\"other\"")], "GET", &address, Value::Null)
            .await;
        assert_eq!((other.status, &other.body), (200, &first.body), "{address}");
        let guarded = server
            .with(&[("if-match", "\"other\"")], "GET", &address, Value::Null)
            .await;
        assert_eq!(guarded.status, 412, "{address}");
    }
}

#[tokio::test]
async fn a_change_guarded_by_a_tag_is_made_once_and_answers_the_next_tag() {
    let (server, addresses) = factory().await;
    let unit = addresses.last().unwrap();
    let changes = [
        ("/materials/1", json!({"name": "tin"})),
        // The same price in other digits changes nothing, and so leaves the tag.
        ("/part-information/1", json!({"defaultPrice": 10.50})),
        ("/part-information/1", json!({"defaultPrice": 12.25})),
        (
            unit,
            json!({"order": 8, "timeOfProduction": "2024-05-01T11:00:00.999Z"}),
        ),
    ];
    for (address, change) in changes {
        let tag = server.get(address).await.header("etag").to_owned();
        server.new_records().await;
        let stale = server
            .with(&[("if-match", "\"stale\"")], "PATCH", address, change.clone())
            .await;
        assert_eq!(stale.status, 412, "{address}: {}", stale.body);
        assert_eq!(stale.body["error"], "Precondition Failed");
        assert!(
            server.new_records().await.is_empty(),
            "{address}: a refused write told Kafka"
        );
        assert_eq!(server.get(address).await.header("etag"), tag);

        let written = server
            .with(&[("if-match", &tag)], "PATCH", address, change.clone())
            .await;
        assert_eq!(written.status, 200, "{address}: {}", written.body);
        let now = server.get(address).await;
        assert_eq!(written.header("etag"), now.header("etag"), "{address}");
    }
}

#[tokio::test]
async fn of_many_that_read_the_same_one_writes() {
    let (server, _) = factory().await;
    let tag = server.get("/materials/1").await.header("etag").to_owned();
    let writes = (0..8).map(|n| {
        let (server, tag) = (&server, &tag);
        async move {
            let name = json!({"name": format!("m{n}")});
            server
                .with(&[("if-match", tag)], "PATCH", "/materials/1", name)
                .await
                .status
        }
    });
    let mut statuses = futures_util::future::join_all(writes).await;
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 412, 412, 412, 412, 412, 412, 412]);
}

#[tokio::test]
async fn a_deletion_can_be_guarded_too_and_any_tag_is_a_star() {
    let (server, _) = factory().await;
    made(&server, "/machine", json!({})).await;
    made(&server, "/materials", json!({"name": "iron"})).await;
    made(
        &server,
        "/part-information",
        json!({"defaultPrice": 1, "timeToProduce": 1}),
    )
    .await;
    for address in ["/machine/2", "/materials/2", "/part-information/2"] {
        // What is not there is not found, whatever tag it should have.
        for (tag, status) in [("\"stale\"", 412), ("*", 204), ("*", 404)] {
            let answer = server
                .with(&[("if-match", tag)], "DELETE", address, Value::Null)
                .await;
            assert_eq!(answer.status, status, "{address}: {}", answer.body);
        }
    }
    let price = json!({"price": 1.5, "date": "15/02/2020"});
    let prices = "/materials/prices/1";
    let tag = server.get(prices).await.header("etag").to_owned();
    let second = json!({"price": 2, "date": "16/02/2020"});
    let set = server
        .with(&[("if-match", &tag)], "POST", prices, second.clone())
        .await;
    assert_eq!(set.status, 201, "{}", set.body);
    for method in ["POST", "DELETE"] {
        let stale = server
            .with(&[("if-match", &tag)], method, prices, price.clone())
            .await;
        assert_eq!(stale.status, 412, "{method}: {}", stale.body);
    }
    let tag = server.get(prices).await.header("etag").to_owned();
    let gone = server.with(&[("if-match", &tag)], "DELETE", prices, second).await;
    assert_eq!(gone.status, 204, "{}", gone.body);
    let gone = server
        .with(&[("if-match", "*")], "DELETE", prices, price.clone())
        .await;
    assert_eq!(gone.status, 204, "{}", gone.body);
    let none = server.with(&[("if-match", "*")], "POST", prices, price).await;
    assert_eq!(none.status, 412, "no prices, no tag: {}", none.body);
}

#[tokio::test]
async fn a_guard_that_cannot_be_kept_refuses_the_write() {
    let (server, _) = factory().await;
    let unquoted = server
        .with(
            &[("if-match", "abc")],
            "PATCH",
            "/materials/1",
            json!({"name": "x"}),
        )
        .await;
    assert_eq!(unquoted.status, 400);
    assert!(unquoted.body["message"].as_str().unwrap().contains("If-Match"));
    let many = json!({"materials": [{"id": 1, "name": "x"}]});
    for (method, address, body) in [
        ("PATCH", "/materials/many-materials", many),
        (
            "POST",
            "/materials/1/part-informations",
            json!({"partInformationIds": [1]}),
        ),
        ("POST", "/machine", json!({})),
    ] {
        let answer = server.with(&[("if-match", "*")], method, address, body).await;
        assert_eq!(answer.status, 412, "{method} {address}: {}", answer.body);
    }
    assert_eq!(server.get("/materials/1").await.body["name"], "zinc");
}
