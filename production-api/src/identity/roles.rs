//! The role that each operation asks for.

use http::Method;
use serde_json::{Map, Value};

/// Each role includes those before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Role {
    /// Reads, and follows topics.
    Viewer,
    /// Records production: creates and changes, links, sets prices, publishes.
    Operator,
    /// Deletes, and says which machines there are.
    Admin,
}

impl Role {
    const ALL: [Self; 3] = [Self::Admin, Self::Operator, Self::Viewer];

    /// As tokens have it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Operator => "operator",
            Self::Admin => "admin",
        }
    }

    /// The highest role that the claims at `pointers` hold.
    pub(super) fn of(claims: &Map<String, Value>, pointers: &[String]) -> Option<Self> {
        let found: Vec<&Value> = pointers
            .iter()
            .filter_map(|pointer| {
                let mut steps = pointer.strip_prefix('/')?.splitn(2, '/');
                let claim = claims.get(&unescaped(steps.next()?))?;
                match steps.next() {
                    Some(rest) => claim.pointer(&format!("/{rest}")),
                    None => Some(claim),
                }
            })
            .collect();
        let holds = |role: &Self| {
            found.iter().any(|value| match value {
                Value::Array(roles) => roles.iter().any(|held| held == role.name()),
                Value::String(held) => held == role.name(),
                _ => false,
            })
        };
        Self::ALL.into_iter().find(holds)
    }
}

/// A JSON pointer's step.
fn unescaped(step: &str) -> String {
    step.replace("~1", "/").replace("~0", "~")
}

/// The role for an operation; `path` is its route under `/api/v1`, whatever its parameter is called.
pub(crate) fn required(method: &Method, path: &str) -> Role {
    // What is deleted of a part's or a material's own can be set again by whoever may set it.
    let is_of_a_row = path.contains("/prices/") || (path.contains('}') && !path.ends_with('}'));
    match *method {
        Method::GET | Method::HEAD => Role::Viewer,
        Method::POST if path.starts_with("/machine") => Role::Admin,
        Method::POST | Method::PATCH => Role::Operator,
        Method::DELETE if is_of_a_row => Role::Operator,
        _ => Role::Admin,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn each_operation_has_the_role_that_its_effect_asks_for() {
        for (method, path, role) in [
            (Method::GET, "/materials/{id}", Role::Viewer),
            (Method::HEAD, "/supply-chain", Role::Viewer),
            (Method::GET, "/mqtt/subscribe", Role::Viewer),
            (Method::POST, "/materials", Role::Operator),
            (Method::PATCH, "/supply-chain/{uuid}", Role::Operator),
            (Method::POST, "/mqtt/publish", Role::Operator),
            (Method::POST, "/materials/{id}/part-informations", Role::Operator),
            (
                Method::DELETE,
                "/materials/{id}/part-informations",
                Role::Operator,
            ),
            (Method::DELETE, "/materials/prices/{id}", Role::Operator),
            (
                Method::DELETE,
                "/materials/prices/{id}/many-prices",
                Role::Operator,
            ),
            (Method::DELETE, "/materials/{id}", Role::Admin),
            (Method::DELETE, "/materials/many-materials", Role::Admin),
            (Method::POST, "/machine", Role::Admin),
            (Method::POST, "/machine/many-machines", Role::Admin),
            (Method::DELETE, "/machine/{id}", Role::Admin),
            (Method::PUT, "/materials", Role::Admin),
        ] {
            assert_eq!(required(&method, path), role, "{method} {path}");
        }
    }

    #[test]
    fn the_highest_role_of_all_claims_counts_and_nothing_else_is_a_role() {
        let pointers = ["/realm_access/roles", "/resource_access/a.b~1c/roles", "/groups"].map(str::to_owned);
        let of = |claims: Value| match claims {
            Value::Object(claims) => Role::of(&claims, &pointers),
            _ => None,
        };
        assert_eq!(
            of(json!({"realm_access": {"roles": ["offline_access", "viewer"]}})),
            Some(Role::Viewer)
        );
        let both = json!({"realm_access": {"roles": ["viewer"]},
            "resource_access": {"a.b/c": {"roles": ["operator"]}, "other": {"roles": ["admin"]}}});
        assert_eq!(of(both), Some(Role::Operator));
        assert_eq!(of(json!({"groups": "admin"})), Some(Role::Admin));
        for none in [
            json!({}),
            json!({"groups": ["Admin", "administrators", 7, null]}),
            json!({"realm_access": {"roles": {"admin": true}}}),
            json!({"roles": ["admin"]}),
        ] {
            assert_eq!(of(none.clone()), None, "{none}");
        }
    }
}
