//! Rules of `/supply-chain` that no recorded case shows.

use serde_json::{Value, json};

use crate::operations::{factory, unit};

#[tokio::test]
async fn a_unit_changes_only_in_what_was_sent() {
    let (server, id) = factory().await;
    let path = format!("/supply-chain/{id}");
    server
        .json("PATCH", &path, json!({"machineId": 2, "partId": 2, "var2": "a"}))
        .await;
    let changed = server
        .json(
            "PATCH",
            &path,
            json!({"order": 7, "timeOfProduction": "2024-01-01T00:00:00.500Z"}),
        )
        .await;
    assert_eq!(changed.status, 200);
    let body = &changed.body;
    assert_eq!(
        (&body["machineId"], &body["partId"], &body["order"]),
        (&json!(2), &json!(2), &json!(7))
    );
    assert_eq!(
        (&body["machine"], &body["part"]["id"]),
        (&json!({"id": 2}), &json!(2))
    );
    assert_eq!(
        (&body["var2"], &body["timeOfProduction"]),
        (&json!("a"), &json!("2024-01-01T00:00:00.500Z"))
    );
    let records = server.new_records().await;
    assert_eq!(
        records.last().unwrap(),
        &("supply_chain".to_owned(), body.clone())
    );
    assert_eq!(
        server.get(&path).await.body["timeOfProduction"],
        "2024-01-01T00:00:00.000Z"
    );
    let machine = server.json("PATCH", &path, json!({"machineId": 9})).await;
    assert_eq!(machine.refusal(), (404, json!("Machine ID not found.")));
    let null = server.json("PATCH", &path, json!({"order": null})).await;
    assert_eq!(
        null.refusal(),
        (
            400,
            json!(["order must be a number conforming to the specified constraints"])
        )
    );
}

#[tokio::test]
async fn each_field_of_a_unit_changes_by_itself_and_nothing_at_all_is_no_fault() {
    let (server, id) = factory().await;
    let path = format!("/supply-chain/{id}");
    for change in [
        json!({}),
        json!({"machineId": 2}),
        json!({"timeOfProduction": "2024-01-01T00:00:00.000Z"}),
        json!({"partId": 2}),
        json!({"order": 8}),
        json!({"var1": 1}),
        json!({"var2": "a"}),
        json!({"var3": "b"}),
        json!({"var4": 4}),
        json!({"var5": true}),
        json!({"var5": false}),
        json!({"var1": null, "var4": null}),
        json!({"var2": null}),
        json!({"var3": null}),
        // The same again, and ids that are null, which are not sent.
        json!({"var3": null, "machineId": null, "partId": null}),
    ] {
        let mut expected = server.get(&path).await.body;
        for (name, value) in change.as_object().unwrap() {
            if !name.ends_with("Id") || !value.is_null() {
                expected[name] = value.clone();
            }
        }
        let changed = server.json("PATCH", &path, change.clone()).await;
        assert_eq!(changed.status, 200, "{change}: {}", changed.body);
        assert_eq!(server.get(&path).await.body, expected, "{change}");
        let mut many = change.clone();
        many["id"] = json!(id);
        let body = json!({"supplyChains": [many]});
        let changed = server
            .json("PATCH", "/supply-chain/many-supply-chain", body)
            .await;
        assert_eq!(changed.status, 200, "{change}: {}", changed.body);
        assert_eq!(server.get(&path).await.body, expected, "{change}");
    }
}

#[tokio::test]
async fn many_units_are_written_together_or_not_at_all() {
    let (server, id) = factory().await;
    let post = |units: Value| {
        server.json(
            "POST",
            "/supply-chain/many-supply-chain",
            json!({"supplyChains": units}),
        )
    };
    let created = post(json!([unit(1, 2), unit(2, 1)])).await;
    assert_eq!((created.status, created.body.as_array().unwrap().len()), (201, 2));
    assert_eq!(
        created.body[0]["part"],
        json!({"id": 2, "defaultPrice": "2.5", "timeToProduce": 20})
    );
    let missing = post(json!([unit(1, 1), unit(1, 9)])).await;
    assert_eq!(missing.refusal(), (404, json!("PartInformation ID not found.")));
    assert_eq!(post(json!([])).await.body, json!([]));
    assert_eq!(
        post(json!(null)).await.refusal(),
        (
            400,
            json!([
                "supplyChains must be an array",
                "each value in nested property supplyChains must be either object or array"
            ])
        )
    );

    let patch = |units: Value| {
        server.json(
            "PATCH",
            "/supply-chain/many-supply-chain",
            json!({"supplyChains": units}),
        )
    };
    let gone = "d2f10ece-70ea-459e-aa29-68ad62287cce";
    let refused = patch(json!([{"id": id, "order": 8}, {"id": gone, "order": 8}])).await;
    assert_eq!(
        refused.refusal(),
        (404, json!(format!("SupplyChain with ID {gone} not found.")))
    );
    assert_eq!(
        patch(json!([{"id": "x"}])).await.refusal(),
        (400, json!(["supplyChains.0.id must be a UUID"]))
    );
    let changed = patch(json!([{"id": id, "order": 8}, {"id": id, "var1": 3}])).await;
    assert_eq!(
        (
            changed.status,
            &changed.body[1]["order"],
            &changed.body[1]["var1"]
        ),
        (200, &json!(8), &json!(3))
    );
    assert_eq!(server.count("SELECT count(*) FROM supply_chain").await, 3);
    assert_eq!(server.new_records().await.len(), 4);
}
