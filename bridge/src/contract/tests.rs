use proptest::prelude::*;
use prost::Message;
use serde_json::{Value as Json, json};

use super::*;
use crate::stamp::{Stamp, stamp};

const UNIT: &str =
    r#"{"timeOfProduction":"2023-12-10T00:00:00.000Z","order":5,"var5":false,"machineId":1,"partId":4}"#;

fn unit() -> Json {
    serde_json::from_str(UNIT).unwrap()
}

fn with(mut object: Json, name: &str, value: Json) -> Vec<u8> {
    object[name] = value;
    object.to_string().into_bytes()
}

fn without(mut object: Json, name: &str) -> Vec<u8> {
    object.as_object_mut().unwrap().remove(name);
    object.to_string().into_bytes()
}

fn refusal(schema: Schema, payload: &[u8]) -> String {
    check(schema, payload, true).unwrap_err().to_string()
}

#[test]
fn the_contracts_own_example_passes() {
    let checked = check(Schema::SupplyChain, UNIT.as_bytes(), true).unwrap();
    assert_eq!((checked.machine_id, checked.part_id), (Some(1), Some(4)));
    assert_eq!(checked.time_of_production_ms, Some(1_702_166_400_000));
    assert!(!checked.has_is_deleted && !checked.has_last_update);
}

#[test]
fn a_refusal_names_the_field_the_fault_and_the_remedy() {
    for (payload, says) in [
        (
            with(unit(), "machineId", json!("7")),
            "`machineId` is the string \"7\": send an integer from 1",
        ),
        (
            with(unit(), "partId", json!(0)),
            "`partId` is 0: send an integer from 1",
        ),
        (
            with(unit(), "partId", json!(2_147_483_648_u32)),
            "`partId` is 2147483648",
        ),
        (
            with(unit(), "machineId", json!(1.0)),
            "`machineId` is the number 1.0",
        ),
        (
            with(unit(), "var5", json!("false")),
            "`var5` is the string \"false\": send true or false, without quotes",
        ),
        (
            with(unit(), "timeOfProduction", json!(1_702_166_400)),
            "`timeOfProduction` is 1702166400: send \"YYYY",
        ),
        (
            with(unit(), "timeOfProduction", json!("2023-02-30T00:00:00.000Z")),
            "a real date",
        ),
        (with(unit(), "isDeleted", json!(true)), "production API"),
        (
            with(unit(), "isDeleted", json!("false")),
            "`isDeleted` is the string",
        ),
        (
            with(unit(), "lastUpdate", json!("now")),
            "`lastUpdate` is the string \"now\": send \"YYYY-MM-DD HH",
        ),
        (
            with(unit(), "materialIdODS", json!(null)),
            "`materialIdODS` is not allowed",
        ),
        (with(unit(), "order", json!(1.5)), "`order` is the number 1.5"),
        (with(unit(), "var2", json!([])), "`var2` is a list"),
        (with(unit(), "var3", json!("a\0")), "`var3`"),
        (
            without(unit(), "machineId"),
            "`machineId` is missing: send an integer",
        ),
        (without(unit(), "var5"), "`var5` is missing"),
    ] {
        let text = refusal(Schema::SupplyChain, &payload);
        assert!(text.contains(says), "{text:?} does not say {says:?}");
    }
}

#[test]
fn what_would_kill_the_json_parser_of_the_client_is_refused() {
    let deep = format!(r#"{{"x":{}1{}}}"#, "[".repeat(5_000), "]".repeat(5_000));
    let digits = format!(r#"{{"x":{}}}"#, "9".repeat(5_000));
    for payload in [
        b"".as_slice(),
        b"null",
        b"[]",
        b"\"text\"",
        b"{",
        b"{}{}",
        b"{} x",
        b"{\"a\":NaN}",
        b"{\"a\":1e999}",
        b"{\"a\":01}",
        b"{a:1}",
        b"{'a':1}",
        b"{\"a\":1,}",
        b"{\"a\":\"\xff\"}",
        b"{\"a\":\"\x01\"}",
        b"{\"a\":\"\\ud800\"}",
        b"{\"a\":\"\\x\"}",
        b"\xef\xbb\xbf{}",
        deep.as_bytes(),
        digits.as_bytes(),
    ] {
        let shown = String::from_utf8_lossy(payload)
            .chars()
            .take(30)
            .collect::<String>();
        assert!(check(Schema::Json, payload, true).is_err(), "{shown}");
    }
    assert!(check(Schema::Json, b" { } \n", true).is_ok());
}

#[test]
fn a_field_that_stands_twice_is_refused_even_when_escaped() {
    let twice = UNIT.replace("\"partId\":4", "\"partId\":4,\"partI\\u0064\":5");
    assert!(refusal(Schema::SupplyChain, twice.as_bytes()).contains("`partId` stands in the object twice"));
    let deleted = UNIT.replace("\"order\":5", "\"isDeleted\":false,\"isDeleted\":false");
    assert!(refusal(Schema::SupplyChain, deleted.as_bytes()).contains("twice"));
}

#[test]
fn the_fields_that_the_client_ignores_may_be_missing_or_null_and_unknown_ones_pass() {
    for payload in [
        without(unit(), "order"),
        with(unit(), "order", json!(null)),
        with(unit(), "var1", json!(-5)),
        with(unit(), "var2", json!(null)),
        with(unit(), "var2", json!("text")),
        with(unit(), "temperature", json!({"c": [20.5, {"deep": null}]})),
        with(unit(), "id", json!("anything")),
    ] {
        check(Schema::SupplyChain, &payload, true).unwrap();
    }
}

#[test]
fn a_part_or_material_may_lack_its_id() {
    let id =
        |schema, payload: Json| check(schema, payload.to_string().as_bytes(), true).map(|checked| checked.id);
    assert_eq!(id(Schema::Material, json!({"name": "Steel"})), Ok(None));
    assert_eq!(
        id(Schema::Material, json!({"id": 3, "name": "Steel"})),
        Ok(Some(3))
    );
    assert_eq!(
        id(Schema::PartInformation, json!({"timeToProduce": 12})),
        Ok(None)
    );
    assert_eq!(
        id(Schema::PartInformation, json!({"id": null, "timeToProduce": 12})),
        Ok(None)
    );
    assert!(id(Schema::Material, json!({"id": 0, "name": "Steel"})).is_err());
    assert!(id(Schema::Material, json!({"id": "3", "name": "Steel"})).is_err());
}

#[test]
fn a_name_has_at_most_255_characters_not_bytes() {
    let name = |name: String| {
        check(
            Schema::Material,
            json!({"name": name}).to_string().as_bytes(),
            true,
        )
    };
    assert!(name("ü".repeat(255)).is_ok());
    assert!(name("ü".repeat(256)).is_err());
    assert!(name(String::new()).is_err());
    assert!(name("a\0b".into()).is_err());
}

#[test]
fn prices_reach_the_api_in_plain_notation() {
    let price = |price: Json| {
        let payload = json!({"timeToProduce": 1, "defaultPrice": price}).to_string();
        match body(Schema::PartInformation, payload.as_bytes()) {
            Ok(Some(Body::Part(part))) => part.default_price,
            Ok(other) => panic!("{other:?}"),
            Err(_) => Some("refused".into()),
        }
    };
    assert_eq!(price(json!("21.6154")).as_deref(), Some("21.6154"));
    assert_eq!(price(json!(21.6154)).as_deref(), Some("21.6154"));
    assert_eq!(price(json!(1e3)).as_deref(), Some("1000"));
    assert_eq!(price(json!(1e-7)).as_deref(), Some("0.0000001"));
    assert_eq!(price(json!(7)).as_deref(), Some("7"));
    assert_eq!(price(json!(null)), None);
    for bad in [
        json!(-1),
        json!("-1"),
        json!("1e3"),
        json!(""),
        json!("."),
        json!("1."),
        json!(1e300),
        json!(true),
    ] {
        assert_eq!(price(bad.clone()).as_deref(), Some("refused"), "{bad}");
    }
}

#[test]
fn without_stamping_the_machine_must_send_the_fields_itself() {
    let text = check(Schema::SupplyChain, UNIT.as_bytes(), false)
        .unwrap_err()
        .to_string();
    assert!(
        text.contains("`isDeleted`") && text.contains("stamp = true"),
        "{text}"
    );
    let mut full = unit();
    full["isDeleted"] = json!(false);
    full["lastUpdate"] = json!("2023-12-10 00:00:00.0000000");
    let full = full.to_string();
    check(Schema::SupplyChain, full.as_bytes(), false).unwrap();
    client::accepts("supply_chain", full.as_bytes()).unwrap();
}

#[test]
fn protobuf_becomes_the_contracts_json() {
    let message = v1::UnitProduced {
        machine_id: 1,
        part_id: 4,
        time_of_production_ms: 1_702_166_400_000,
        order: Some(5),
        ..Default::default()
    };
    let json = protobuf::transcode(Schema::SupplyChain, &message.encode_to_vec())
        .unwrap()
        .unwrap();
    assert_eq!(String::from_utf8(json).unwrap(), UNIT);
}

#[test]
fn bytes_that_are_no_protobuf_are_refused_with_the_message_to_send() {
    let text = protobuf::transcode(Schema::Material, b"\xff")
        .unwrap_err()
        .to_string();
    assert!(text.contains("shopfloor.v1.MaterialData"), "{text}");
    let late = v1::UnitProduced {
        time_of_production_ms: i64::MAX,
        ..Default::default()
    };
    let text = protobuf::transcode(Schema::SupplyChain, &late.encode_to_vec())
        .unwrap_err()
        .to_string();
    assert!(text.contains("years 1 to 9999"), "{text}");
}

/// Values near every edge of the rules.
fn arb_value() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => prop::sample::select(vec![
            "1", "0", "-1", "2147483647", "2147483648", "1.0", "1e2", "true", "false", "null", "\"1\"", "\"\"",
            "\"2023-12-10T00:00:00.000Z\"", "\"2023-02-30T00:00:00.000Z\"", "\"2023-12-10 00:00:00.000Z\"",
            "\"2023-12-10 00:00:00.0000000\"", "\"0000-12-10 00:00:00.0000000\"", "[]", "{}", "\"\\ud800\"",
        ]).prop_map(str::to_owned),
        1 => any::<i64>().prop_map(|number| number.to_string()),
        1 => "\\PC{0,8}".prop_map(|text| json!(text).to_string()),
        1 => "[ -~]{0,6}",
    ]
}

/// Objects that are mostly right, so that many of them pass.
fn arb_payload(good: Json) -> impl Strategy<Value = Vec<u8>> {
    const NAMES: [&str; 17] = [
        "machineId",
        "partId",
        "timeOfProduction",
        "order",
        "var1",
        "var2",
        "var3",
        "var4",
        "var5",
        "id",
        "name",
        "timeToProduce",
        "defaultPrice",
        "isDeleted",
        "lastUpdate",
        "materialIdODS",
        "x",
    ];
    let good: Vec<(String, String)> = good
        .as_object()
        .unwrap()
        .iter()
        .map(|(name, value)| (name.clone(), value.to_string()))
        .collect();
    let changes = prop::collection::vec(
        (prop::sample::select(&NAMES[..]), arb_value(), any::<bool>()),
        0..3,
    );
    (changes, any::<bool>()).prop_map(move |(changes, spaces)| {
        let mut pairs = good.clone();
        for (name, value, add) in changes {
            if !add {
                pairs.retain(|(other, _)| other != name);
            }
            pairs.push((name.to_owned(), value));
        }
        let space = if spaces { " \n" } else { "" };
        let inner: Vec<_> = pairs
            .iter()
            .map(|(name, value)| format!("{space}\"{name}\"{space}:{space}{value}"))
            .collect();
        format!("{space}{{{}{space}}}{space}", inner.join(",")).into_bytes()
    })
}

fn arb_case() -> impl Strategy<Value = (Schema, Vec<u8>)> {
    prop_oneof![
        arb_payload(unit()).prop_map(|payload| (Schema::SupplyChain, payload)),
        arb_payload(json!({"id": 1, "timeToProduce": 3, "defaultPrice": "1.5"}))
            .prop_map(|payload| (Schema::PartInformation, payload)),
        arb_payload(json!({"id": 1, "name": "Steel"})).prop_map(|payload| (Schema::Material, payload)),
    ]
}

fn stamped(checked: Checked, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let wanted = Stamp {
        is_deleted: !checked.has_is_deleted,
        last_update: !checked.has_last_update,
    };
    stamp(payload, wanted, 1_702_166_400_000, &mut out);
    out
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn what_passes_is_acceptable_to_the_client((schema, payload) in arb_case()) {
        let Ok(checked) = check(schema, &payload, true) else { return Ok(()) };
        if schema != Schema::SupplyChain && checked.id.is_none() {
            return Ok(());
        }
        let value = stamped(checked, &payload);
        let verdict = client::accepts(schema.name(), &value);
        prop_assert!(verdict.is_ok(), "{:?}: {}", verdict, String::from_utf8_lossy(&value));
        prop_assert!(body(schema, &payload).unwrap().is_some());
    }

    #[test]
    fn arbitrary_bytes_never_panic(payload in prop::collection::vec(any::<u8>(), 0..200)) {
        for schema in Schema::ALL {
            let _checked = check(schema, &payload, true);
            let _body = body(schema, &payload);
            let _json = protobuf::transcode(schema, &payload);
        }
    }

    #[test]
    fn a_valid_protobuf_always_passes_and_keeps_its_values(
        machine_id in 1..=i32::MAX,
        part_id in 1..=i32::MAX,
        time_of_production_ms in -62_135_596_800_000_i64..253_402_300_800_000,
        order in any::<Option<i32>>(),
        var2 in prop::option::of("[^\0]{0,20}"),
        var4 in any::<Option<i32>>(),
        var5 in any::<bool>(),
    ) {
        let sent = v1::UnitProduced {
            machine_id, part_id, time_of_production_ms, order, var1: None, var2, var3: None, var4, var5,
        };
        let json = protobuf::transcode(Schema::SupplyChain, &sent.encode_to_vec()).unwrap().unwrap();
        let checked = check(Schema::SupplyChain, &json, true).unwrap();
        client::accepts("supply_chain", &stamped(checked, &json)).unwrap();
        prop_assert_eq!(body(Schema::SupplyChain, &json).unwrap(), Some(Body::Unit(sent)));
    }

    #[test]
    fn a_valid_part_or_material_in_protobuf_passes(
        id in prop::option::of(1..=i32::MAX),
        price in prop::option::of("[0-9]{1,10}(\\.[0-9]{1,10})?"),
        seconds in 1..=i32::MAX,
        name in "[^\0]{1,255}",
    ) {
        let part = v1::PartReference { id, default_price: price, time_to_produce: seconds };
        let json = protobuf::transcode(Schema::PartInformation, &part.encode_to_vec()).unwrap().unwrap();
        check(Schema::PartInformation, &json, true).unwrap();
        prop_assert_eq!(body(Schema::PartInformation, &json).unwrap(), Some(Body::Part(part)));

        let material = v1::MaterialData { id, name };
        let json = protobuf::transcode(Schema::Material, &material.encode_to_vec()).unwrap().unwrap();
        check(Schema::Material, &json, true).unwrap();
        prop_assert_eq!(body(Schema::Material, &json).unwrap(), Some(Body::Material(material)));
    }
}
