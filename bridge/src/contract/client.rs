//! The migration client's rules, ported for tests: what makes it fail, fails here.

use serde_json::Value;

/// Whether the client takes a value of that topic.
pub(crate) fn accepts(topic: &str, value: &[u8]) -> Result<(), String> {
    // json.loads(value.decode("utf-8"))
    let text = std::str::from_utf8(value).map_err(|_| "UnicodeDecodeError")?;
    let value: Value = serde_json::from_str(text).map_err(|error| error.to_string())?;
    let object = value.as_object().ok_or("not an object")?;
    if object
        .get("isDeleted")
        .and_then(Value::as_bool)
        .ok_or("isDeleted")?
    {
        return Err("deletes".into());
    }
    let last_update = object
        .get("lastUpdate")
        .and_then(Value::as_str)
        .ok_or("lastUpdate")?;
    real(last_update, ' ', 7).ok_or("lastUpdate")?;
    match topic {
        "supply_chain" => {
            if object.contains_key("materialIdODS") {
                return Err("materialIdODS".into());
            }
            for name in ["machineId", "partId"] {
                object
                    .get(name)
                    .and_then(Value::as_i64)
                    .filter(|id| *id >= 1)
                    .ok_or(name)?;
            }
            object.get("var5").and_then(Value::as_bool).ok_or("var5")?;
            let time = object
                .get("timeOfProduction")
                .and_then(Value::as_str)
                .ok_or("timeOfProduction")?;
            let time = time.strip_suffix('Z').ok_or("timeOfProduction")?;
            real(time, 'T', 3).ok_or("timeOfProduction")?;
        }
        "part_information" => {
            object.get("id").and_then(Value::as_i64).ok_or("id")?;
            object
                .get("timeToProduce")
                .filter(|value| value.is_number())
                .ok_or("timeToProduce")?;
        }
        "material" => {
            object
                .get("id")
                .and_then(Value::as_i64)
                .filter(|id| (1..=i64::from(i32::MAX)).contains(id))
                .ok_or("id")?;
            object
                .get("name")
                .and_then(Value::as_str)
                .filter(|name| name.chars().count() <= 255)
                .ok_or("name")?;
        }
        other => return Err(format!("no processor for {other}")),
    }
    Ok(())
}

/// datetime.strptime, by another library than the check's own parser.
fn real(text: &str, separator: char, fraction: usize) -> Option<()> {
    let (date, clock) = text.split_once(separator)?;
    let (clock, digits) = clock.split_once('.')?;
    let format = time::macros::format_description!("[year]-[month]-[day] [hour]:[minute]:[second]");
    let moment = time::PrimitiveDateTime::parse(&format!("{date} {clock}"), &format).ok()?;
    let digits_fit = digits.len() == fraction && digits.bytes().all(|byte| byte.is_ascii_digit());
    (digits_fit && moment.year() >= 1 && date.len() == 10).then_some(())
}
