//! Rules of the contract that no recorded case shows.

use serde_json::{Value, json};

use crate::server::Server;

/// Two machines, two parts, two materials, and a unit of the first of each.
pub(crate) async fn factory() -> (Server, String) {
    let server = Server::fresh().await;
    let parts = json!({"partInformations": [
        {"defaultPrice": 1.5, "timeToProduce": 10}, {"defaultPrice": 2.5, "timeToProduce": 20}]});
    assert_eq!(
        server
            .json("POST", "/machine/many-machines", json!({"quantity": 2}))
            .await
            .status,
        201
    );
    assert_eq!(
        server
            .json("POST", "/part-information/many-part-informations", parts)
            .await
            .status,
        201
    );
    let materials = json!({"materials": [{"name": "zinc"}, {"name": "iron"}]});
    assert_eq!(
        server
            .json("POST", "/materials/many-materials", materials)
            .await
            .status,
        201
    );
    let unit = server.json("POST", "/supply-chain", unit(1, 1)).await;
    let id = unit.body["id"].as_str().unwrap().to_owned();
    server.new_records().await;
    (server, id)
}

pub(crate) fn unit(machine_id: i32, part_id: i32) -> Value {
    json!({"timeOfProduction": "2023-12-10T00:00:00.000Z", "order": 5, "var5": false,
        "machineId": machine_id, "partId": part_id})
}

/// Topic, id and `isDeleted` of each record since the last look.
async fn told(server: &Server) -> Vec<(String, Value, bool)> {
    let records = server.new_records().await.into_iter();
    records
        .map(|(topic, value)| (topic, value["id"].clone(), value["isDeleted"] == true))
        .collect()
}

#[tokio::test]
async fn a_material_linked_with_parts_answers_with_all_of_them_however_often_it_is_linked() {
    let (server, _) = factory().await;
    server
        .json(
            "POST",
            "/materials/1/part-informations",
            json!({"partInformationIds": [1]}),
        )
        .await;
    for _ in 0..2 {
        let linked = server
            .json(
                "POST",
                "/materials/1/part-informations",
                json!({"partInformationIds": [2, 2]}),
            )
            .await;
        assert_eq!(linked.status, 201);
        assert_eq!(
            linked.body,
            json!({"id": 1, "name": "zinc", "partInformations": [
            {"id": 1, "defaultPrice": "1.5", "timeToProduce": 10},
            {"id": 2, "defaultPrice": "2.5", "timeToProduce": 20}]})
        );
    }
    let from_the_part = server
        .json(
            "POST",
            "/part-information/1/materials",
            json!({"materialIds": [2]}),
        )
        .await;
    assert_eq!(from_the_part.status, 201);
    assert_eq!(
        from_the_part.body["materials"],
        json!([{"id": 1, "name": "zinc"}, {"id": 2, "name": "iron"}])
    );
    let unlinked = server
        .json(
            "DELETE",
            "/part-information/1/materials",
            json!({"materialIds": [1, 2]}),
        )
        .await;
    assert_eq!((unlinked.status, unlinked.body), (204, Value::Null));
    assert_eq!(
        server
            .count("SELECT count(*) FROM material_part_information")
            .await,
        1
    );
    assert_eq!(told(&server).await, [], "a link is no record");
}

#[tokio::test]
async fn a_link_with_something_that_is_not_there_names_it() {
    let (server, _) = factory().await;
    let post = |path: &'static str, body: Value| server.json("POST", path, body);
    for (path, body, text) in [
        (
            "/materials/9/part-informations",
            json!({"partInformationIds": [1]}),
            "Material not found.",
        ),
        (
            "/materials/1/part-informations",
            json!({"partInformationIds": [1, 9]}),
            "One or more Part Information not found.",
        ),
        (
            "/part-information/9/materials",
            json!({"materialIds": [1]}),
            "Part Information not found.",
        ),
        (
            "/part-information/1/materials",
            json!({"materialIds": [9]}),
            "One or more Materials not found.",
        ),
    ] {
        assert_eq!(post(path, body).await.refusal(), (404, json!(text)));
    }
    let texts = json!([
        "each value in materialIds must be a number conforming to the specified constraints",
        "materialIds should not be empty",
        "materialIds must be an array"
    ]);
    assert_eq!(
        post("/part-information/1/materials", json!({})).await.refusal(),
        (400, texts)
    );
    assert_eq!(
        server
            .count("SELECT count(*) FROM material_part_information")
            .await,
        0
    );
}

#[tokio::test]
async fn a_delete_of_many_is_all_or_nothing_and_tells_of_every_row() {
    let (server, _) = factory().await;
    let ids =
        |field: &str, ids: &[i32]| json!({field: ids.iter().map(|id| json!({"id": id})).collect::<Vec<_>>()});
    for (path, field, topic, text) in [
        (
            "/materials/many-materials",
            "materials",
            "material",
            "Materials with IDs 888, 9 not found",
        ),
        (
            "/part-information/many-part-informations",
            "partInformations",
            "part_information",
            "Part information with IDs 888, 9 not found",
        ),
    ] {
        let missing = server.json("DELETE", path, ids(field, &[2, 888, 9])).await;
        assert_eq!(missing.refusal(), (404, json!(text)));
        let none = server.json("DELETE", path, ids(field, &[])).await;
        assert_eq!(
            none.refusal(),
            (400, json!([format!("{field} should not be empty")]))
        );
        assert_eq!(told(&server).await, []);
        assert_eq!(server.json("DELETE", path, ids(field, &[2])).await.status, 204);
        assert_eq!(told(&server).await, [(topic.to_owned(), json!(2), true)]);
    }
    let machines = |ids: Value| server.json("DELETE", "/machine/many-machines", json!({"machineIds": ids}));
    let missing = "Some machines were not found and could not be deleted.";
    assert_eq!(machines(json!([2, 9])).await.refusal(), (404, json!(missing)));
    for refused in [json!({}), json!([]), json!(null), json!([1.5]), json!(["x"])] {
        assert_eq!(machines(refused.clone()).await.status, 400, "{refused}");
    }
    let nothing = server.json("DELETE", "/machine/many-machines", json!({})).await;
    assert_eq!(nothing.status, 400, "not every machine");
    assert_eq!(machines(json!([2])).await.status, 204);
    assert_eq!(told(&server).await, [("machine".to_owned(), json!(2), true)]);
}

#[tokio::test]
async fn what_units_refer_to_stays_and_no_record_says_otherwise() {
    let (server, _) = factory().await;
    for path in ["/machine/1", "/part-information/1"] {
        let refused = server.json("DELETE", path, json!(null)).await;
        assert_eq!(refused.status, 409, "{path}");
        assert!(
            refused.body["message"]
                .as_str()
                .unwrap()
                .contains("supply chain units refer to it")
        );
        assert_eq!(server.get(path).await.status, 200);
    }
    assert_eq!(told(&server).await, []);
}

#[tokio::test]
async fn a_deleted_part_takes_its_links_with_it_and_a_deleted_material_too() {
    let (server, _) = factory().await;
    server
        .json(
            "POST",
            "/materials/1/part-informations",
            json!({"partInformationIds": [1, 2]}),
        )
        .await;
    assert_eq!(
        server
            .json("DELETE", "/part-information/2", json!(null))
            .await
            .status,
        204
    );
    assert_eq!(
        server.json("DELETE", "/materials/1", json!(null)).await.status,
        204
    );
    assert_eq!(
        server
            .count("SELECT count(*) FROM material_part_information")
            .await,
        0
    );
    let again = server.json("DELETE", "/materials/1", json!(null)).await;
    assert_eq!(again.refusal(), (404, json!("Material not found")));
    let records = told(&server).await;
    assert_eq!(
        records,
        [
            ("part_information".into(), json!(2), true),
            ("material".into(), json!(1), true)
        ]
    );
}

#[tokio::test]
async fn renaming_many_materials_keeps_unsent_names_and_refuses_taken_ones_as_a_whole() {
    let (server, _) = factory().await;
    let patch = |materials: Value| {
        server.json(
            "PATCH",
            "/materials/many-materials",
            json!({"materials": materials}),
        )
    };
    let changed = patch(json!([{"id": 1, "name": "zinc"}, {"id": 2}])).await;
    assert_eq!(changed.status, 200);
    assert_eq!(
        (&changed.body[0]["name"], &changed.body[1]["name"]),
        (&json!("zinc"), &json!("iron"))
    );
    let taken = patch(json!([{"id": 2, "name": "tin"}, {"id": 1, "name": "iron"}])).await;
    let text = "Conflict: Another material with these names already exists: iron";
    assert_eq!(taken.refusal(), (409, json!(text)));
    let twice = patch(json!([{"id": 1, "name": "tin"}, {"id": 2, "name": "tin"}])).await;
    let text = "Conflict: Another material with these names already exists: tin";
    assert_eq!(twice.refusal(), (409, json!(text)));
    let missing = patch(json!([{"id": 1, "name": "lead"}, {"id": 9, "name": "tin"}])).await;
    assert_eq!(
        missing.refusal(),
        (404, json!("One of the materials with ID 9 doesn't exist."))
    );
    let faults = patch(json!([{"id": 0, "name": []}])).await;
    assert_eq!(
        faults.refusal(),
        (
            400,
            json!([
                "materials.0.id must be a positive number",
                "materials.0.name must be a string"
            ])
        )
    );
    assert_eq!(
        server.get("/materials").await.body,
        json!([{"id": 1, "name": "zinc"}, {"id": 2, "name": "iron"}])
    );
}

#[tokio::test]
async fn prices_are_one_a_day_set_in_order_and_deleted_by_day_and_amount() {
    let (server, _) = factory().await;
    let prices = json!({"prices": [
        {"price": 1, "date": "2020-02-15"}, {"price": 2.5, "date": "16/02/2020"}, {"price": 3, "date": "15/02/2020"}]});
    let set = server
        .json("POST", "/materials/prices/1/many-prices", prices)
        .await;
    assert_eq!(set.status, 201);
    let third = &set.body[2];
    assert_eq!(
        (&third["id"], &third["price"], &third["date"]),
        (&json!(1), &json!(3), &json!("15/02/2020"))
    );
    let listed = server.get("/materials/prices/1").await.body;
    let amounts: Vec<_> = listed
        .as_array()
        .unwrap()
        .iter()
        .map(|price| (&price["id"], &price["price"]))
        .collect();
    assert_eq!(amounts.len(), 2);
    assert!(amounts.contains(&(&json!(1), &json!("3"))) && amounts.contains(&(&json!(2), &json!("2.5"))));
    server.new_records().await;

    let other = server
        .json(
            "DELETE",
            "/materials/prices/1",
            json!({"price": 9, "date": "2020-02-15"}),
        )
        .await;
    let text = "Material Price for ID 1 with the specified price or date doesn't exist.";
    assert_eq!(other.refusal(), (404, json!(text)));
    assert_eq!(other.body["error"], "Not Found");
    let one_is_missing =
        json!({"prices": [{"price": 3, "date": "2020-02-15"}, {"price": 9, "date": "16/02/2020"}]});
    assert_eq!(
        server
            .json("DELETE", "/materials/prices/1/many-prices", one_is_missing)
            .await
            .status,
        404
    );
    assert_eq!(
        server.json("DELETE", "/materials/1", json!(null)).await.status,
        409,
        "prices refer to it"
    );
    assert_eq!(told(&server).await, []);
    assert_eq!(
        server
            .json(
                "DELETE",
                "/materials/prices/1",
                json!({"price": "3.0", "date": "15/02/2020"})
            )
            .await
            .status,
        204
    );
    let both = json!({"prices": [{"price": 2.5, "date": "16-2-2020"}, {"price": 2.5, "date": "16/02/2020"}]});
    assert_eq!(
        server
            .json("DELETE", "/materials/prices/1/many-prices", both)
            .await
            .status,
        204
    );
    let deleted = |id: i32| ("material_prices".to_owned(), json!(id), true);
    assert_eq!(told(&server).await, [deleted(1), deleted(2)]);
}
